//! One dashboard's write side on a real socket, with the time in the test's hands.

use std::io::Read as _;
use std::net::TcpListener;

use super::*;
use crate::runtime::clock::Clock;
use crate::server::limits::Limits;

const DEADLINE: Duration = Duration::from_secs(20);

/// A dashboard with the least send buffer that Linux grants, and its far end.
fn dashboard(now: Instant) -> (Dashboard, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket2::SockRef::from(&socket).set_send_buffer_size(4096).unwrap();
    (Dashboard::new(Arc::new(socket), Vec::new(), now), peer)
}

fn updates(bytes: usize, seqs: std::ops::RangeInclusive<u64>) -> Arc<Frames> {
    let mut frames = Frames::default();
    for seq in seqs {
        frames.push_text(&"x".repeat(bytes), seq);
    }
    Arc::new(frames)
}

/// Who had nothing waiting is not behind by one write, however large, and however little of it
/// the kernel takes.
#[test]
fn one_write_makes_nobody_fall_behind() {
    let now = Clock::start().now();
    let (mut dashboard, _peer) = dashboard(now);
    dashboard.send_snapshot(&updates(2, 1..=1), true, now);
    let merged = updates(KIB, 2..=(MAX_WRITE_BYTES + MAX_BATCH_BYTES) as u64 / KIB as u64);
    assert_eq!(dashboard.send_updates(&merged, now), Sent::Queued);
    assert!(dashboard.is_live());
    let seq = dashboard.seq().unwrap();
    let more = updates(2 * MAX_BACKLOG_BYTES, seq + 1..=seq + 1);
    assert_eq!(dashboard.send_updates(&more, now), Sent::FellBehind);
    assert!(dashboard.seq().unwrap() < seq, "what was dropped counts as not sent");
}

/// Nor is one who has read since the last try, however much comes at once.
#[test]
fn who_has_read_meanwhile_has_not_fallen_behind() {
    let now = Clock::start().now();
    let (mut dashboard, mut peer) = dashboard(now);
    socket2::SockRef::from(&*dashboard.socket).set_send_buffer_size(1_024 * KIB).unwrap();
    dashboard.send_snapshot(&updates(1, 1..=1), true, now);
    let (mut seq, mut sent) = (1, 3);
    while dashboard.queue.is_empty() {
        seq += 1;
        let update = updates(MAX_BACKLOG_BYTES, seq..=seq);
        dashboard.send_updates(&update, now);
        sent += update.bytes().len() - dashboard.queue.update_bytes();
    }
    peer.read_exact(&mut vec![0; sent]).unwrap();
    let more = updates(MAX_BACKLOG_BYTES, seq + 1..=seq + 1);
    assert_eq!(dashboard.send_updates(&more, now), Sent::Queued);
    assert!(dashboard.is_live());
}

/// Updates that a snapshot holds already are skipped.
#[test]
fn updates_from_before_the_snapshot_are_skipped() {
    let now = Clock::start().now();
    let (mut dashboard, mut peer) = dashboard(now);
    dashboard.send_snapshot(&updates(1, 5..=5), true, now);
    assert_eq!(dashboard.send_updates(&updates(2, 3..=5), now), Sent::All);
    assert_eq!(dashboard.send_updates(&updates(3, 4..=7), now), Sent::All);
    assert_eq!(dashboard.seq(), Some(7));
    let mut bytes = vec![0; 3 + 2 * 5];
    peer.read_exact(&mut bytes).unwrap();
    let expected = [&b"\x81\x01x"[..], b"\x81\x03xxx", b"\x81\x03xxx"].concat();
    assert_eq!(bytes, expected, "the snapshot, then 6 and 7");
}

/// Who is behind and goes on taking a little in each `lag_timeout` is never cut off; who stops is.
#[test]
fn who_goes_on_reading_is_never_cut_off() {
    let mut now = Clock::start().now();
    let (mut dashboard, mut peer) = dashboard(now);
    peer.set_nonblocking(true).unwrap();
    let times = Times::from(&Limits::default());
    dashboard.send_snapshot(&updates(32 * 1_024 * KIB, 1..=1), true, now);
    for window in 0..100 {
        assert_eq!(dashboard.pump(now), Pumped::Blocked);
        let deadline = Clock::start().now() + DEADLINE;
        while dashboard.behind.unwrap().taken < times.lag_min_bytes {
            assert!(Clock::start().now() < deadline, "the peer reads, the kernel takes nothing");
            // Nothing may be there, while the kernel has yet to hear that the last was read.
            let _ = peer.read(&mut [0; 16 * KIB]);
            dashboard.pump(now);
        }
        now += times.lag_timeout;
        assert_eq!(dashboard.check_lag(now, &times), None, "window {window}");
    }
    let just_before = now + times.lag_timeout - Duration::from_millis(1);
    assert_eq!(dashboard.check_lag(just_before, &times), None);
    let reason = dashboard.check_lag(now + times.lag_timeout, &times);
    assert_eq!(reason, Some("took less than lag_min_bytes within lag_timeout"));
}

/// Who has taken all that was sent, part by part, is not kept waiting longer for the next one.
#[test]
fn who_catches_up_is_not_slowed_down() {
    let now = Clock::start().now();
    let (mut dashboard, mut peer) = dashboard(now);
    dashboard.send_snapshot(&updates(1, 1..=1), false, now);
    for seq in 2..20 {
        assert_eq!(dashboard.pump(now), Pumped::Resumes(Some(seq - 1)));
        dashboard.wait();
        assert_eq!(dashboard.send_changes(&updates(1, seq..=seq), false, now), Sent::All);
        peer.read_exact(&mut [0; 3]).unwrap();
    }
    assert!(dashboard.retry_delay <= RETRY_FIRST, "{:?}", dashboard.retry_delay);
}

/// Tries are further apart the less they move, within bounds.
#[test]
fn tries_adapt_to_the_line() {
    let now = Clock::start().now();
    let (mut dashboard, _peer) = dashboard(now);
    // More than the kernel takes: something waits.
    assert_eq!(dashboard.send_snapshot(&updates(32 * 1_024 * KIB, 1..=1), true, now), Sent::Queued);
    for (taken, delays) in [(0, [10, 20, 40, 80, 160, 160]), (LATE_BYTES, [80, 40, 20, 10, 5, 2])] {
        for delay in delays {
            dashboard.adapt_retry(taken);
            assert_eq!(dashboard.retry_delay.as_millis(), delay);
        }
    }
    dashboard.adapt_retry(LATE_BYTES);
    dashboard.adapt_retry(LATE_BYTES);
    assert_eq!(dashboard.retry_delay, RETRY_SHORTEST, "nor shorter");
    dashboard.adapt_retry(EARLY_BYTES);
    assert_eq!(dashboard.retry_delay, RETRY_SHORTEST);
}
