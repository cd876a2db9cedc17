//! What the other tests rely on: a browser that hears everything and leaves nothing behind.

use crate::support::browser::Kind;
use crate::support::tools::needs;
use crate::support::{Browser, Server, eventually};

/// What a page can do wrong, as what is heard of it.
const WRONGS: [(&str, Kind, &str); 6] = [
    ("console.error('told')", Kind::Console, "told"),
    ("setTimeout(() => { throw new Error('thrown') })", Kind::Exception, "thrown"),
    ("void Promise.reject(new Error('rejected'))", Kind::Exception, "rejected"),
    ("void fetch('/no-such-path')", Kind::Network, "/no-such-path"),
    ("void fetch('http://127.0.0.2:9/').catch(() => {})", Kind::Policy, "connect-src"),
    (
        "(() => { try { document.body.innerHTML = '<b>bold</b>' } catch {} })()",
        Kind::Policy,
        "require-trusted-types-for",
    ),
];

#[test]
fn what_a_page_does_wrong_is_heard() {
    needs!(Chromium);
    let server = Server::dev();
    let origin = format!("http://{}", server.addr());
    let browser = Browser::open(&format!("{origin}/"));
    assert_eq!(browser.faults(), []);
    for (script, kind, text) in WRONGS {
        browser.eval(&format!("{script}, 0"));
        eventually(text, || {
            let faults = browser.faults();
            faults.into_iter().find(|fault| fault.kind == kind && fault.text.contains(text))
        });
    }
    let requests = browser.requests();
    assert_eq!(requests.first(), Some(&format!("{origin}/")));
    assert!(requests.contains(&format!("{origin}/no-such-path")), "{requests:?}");
    assert!(requests.iter().any(|url| url.starts_with("ws://")), "{requests:?}");
}
