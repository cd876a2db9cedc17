//! The commands: `init` writes what `check` understands and `serve` runs; what is wrong is said
//! with its place; nothing starts that should not.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::http::heartbeat;
use crate::support::server::{BINARY, without_our_variables};
use crate::support::setup::{KEY_A, sha256};
use crate::support::{Conn, Dashboard, Launch, Request, Server, Setup};

fn run(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(BINARY);
    without_our_variables(&mut command);
    command.args(args).current_dir(dir).output().unwrap()
}

/// Everything that it printed.
fn printed(output: &Output) -> String {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{stdout}\n{stderr}")
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{}", printed(output));
    assert!(output.status.code().is_some_and(|code| code != 101), "a panic: {}", printed(output));
    printed(output)
}

#[test]
fn init_check_and_serve_fit_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made.toml");
    let output = run(&["init", "--output", "made.toml"], dir.path());
    assert!(output.status.success(), "{}", printed(&output));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    // What was printed is what the file holds the hashes of, and the file holds no secret.
    let told = printed(&output);
    let secret = preimage(&told, &value_of(&text, "app_secret_sha256"));
    let token = preimage(&told, &value_of(&text, "token_sha256"));
    for random in [&secret, &token] {
        // 128 bits take 22 characters of base64, or more of anything plainer.
        assert!(random.len() >= 22, "{random} is short");
        assert!(!text.contains(random.as_str()));
    }
    assert_ne!(secret, token);

    let checked = run(&["check", "--config", "made.toml"], dir.path());
    assert!(checked.status.success(), "{}", printed(&checked));
    let pool = value_of(&text[text.find("[[pools]]").unwrap()..], "id");
    assert!(printed(&checked).contains(&pool), "{}", printed(&checked));

    let server = Server::start(&text);
    let app_key = value_of(&text, "app_key");
    let ping = Request::new("POST", "/api/v1/agents/agent/ping")
        .header("X-App-Key", &app_key)
        .header("X-App-Secret", &secret)
        .body(heartbeat(1.0).to_string().as_bytes());
    assert_eq!(ping.send(server.addr()).status, 200);
    let mut dashboard = Dashboard::join_with(server.addr(), &pool, Some(&token));
    let initial = dashboard.expect("initial_metrics");
    assert_eq!(initial["metrics"][0]["agent_id"], "agent");
    let without = Request::get("/api/v1/agent-pools").send(server.addr());
    assert_eq!(without.status, 401);
}

#[test]
fn init_overwrites_nothing_and_never_repeats_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let first = run(&["init"], dir.path());
    assert!(first.status.success(), "{}", printed(&first));
    let text = fs::read_to_string(dir.path().join("agent-metrics.toml")).unwrap();
    let again = refused(&run(&["init"], dir.path()));
    assert!(again.contains("agent-metrics.toml"), "{again}");
    assert_eq!(fs::read_to_string(dir.path().join("agent-metrics.toml")).unwrap(), text);

    assert!(run(&["init", "--output", "other.toml"], dir.path()).status.success());
    let other = fs::read_to_string(dir.path().join("other.toml")).unwrap();
    for member in ["app_secret_sha256", "token_sha256"] {
        assert_ne!(value_of(&text, member), value_of(&other, member));
    }
}

#[test]
fn a_mistake_in_the_file_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let good = Setup::open()
        .line("# one")
        .line("evict_after = \"5m\"")
        .limit("max_connections = 64")
        .toml();
    let hash = sha256(KEY_A.secret);
    let cases = [
        ("evict_after =", "evict_aftre =", "evict_aftre"),
        ("max_connections =", "max_connection =", "max_connection"),
        ("max_connections =", "max_headers =", "max_headers"),
        ("open = true", "opened = true", "opened"),
        ("app_key = \"key-b\"", "appkey = \"key-b\"", "appkey"),
        ("\"5m\"", "\"soon\"", "evict_after"),
        ("\"5m\"", "0", "evict_after"),
        ("= 64", "= -64", "max_connections"),
        ("= 64", "= \"many\"", "max_connections"),
        ("open = true", "open = \"yes\"", "open"),
        ("id = \"pool-b\"", "id = \"pool b\"", "id"),
        ("id = \"pool-b\"", "id = \"pool-a\"", "pool-a"),
        ("app_key = \"key-b\"", "app_key = \"key-a\"", "key-a"),
        (&hash, &hash[1..], "app_secret_sha256"),
        ("open = true", "token_file = \"no-such-file\"", "no-such-file"),
        ("# one", "listen = \"localhost\"", "listen"),
        ("# one", "trusted_proxies = [\"proxy\"]", "trusted_proxies"),
        ("# one", "allowed_origins = [\"example.org\"]", "allowed_origins"),
        ("# one", "broken", ""),
    ];
    for (from, to, named) in cases {
        assert!(good.contains(from), "{from}");
        let text = good.replacen(from, to, 1);
        let line = text.lines().zip(good.lines()).position(|(bad, good)| bad != good).unwrap() + 1;
        fs::write(dir.path().join("bad.toml"), &text).unwrap();
        for command in ["check", "serve"] {
            let said = refused(&run(&[command, "--config", "bad.toml"], dir.path()));
            assert!(said.contains(named), "{to}: no {named} in {said}");
            let places = [format!("bad.toml:{line}"), format!("line {line}")];
            let found = places.iter().any(|place| said.contains(place));
            assert!(found, "{to}: not at {places:?} in {said}");
            assert!(!said.contains(KEY_A.secret) && !said.contains(&hash[1..]), "{said}");
        }
    }
    fs::write(dir.path().join("good.toml"), &good).unwrap();
    let output = run(&["check", "--config", "good.toml"], dir.path());
    assert!(output.status.success(), "{}", printed(&output));
    for word in ["pool-a", "pool-b", "open"] {
        assert!(printed(&output).contains(word), "{}", printed(&output));
    }
}

#[test]
fn all_mistakes_in_the_file_are_named_at_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), "fifteen-letters\n").unwrap();
    let text = Setup::open()
        .line("listen = \"localhost\"")
        .line("evict_after = \"soon\"")
        .limit("max_dashboards = 0")
        .limit("max_headers = 64")
        .toml()
        .replacen("open = true", "token_file = \"token\"", 1)
        .replacen("id = \"pool-b\"", "id = \"pool b\"", 1);
    fs::write(dir.path().join("bad.toml"), &text).unwrap();
    let causes =
        ["localhost", "soon", "token_file", "pool b", "max_dashboards = 0", "max_headers ="];
    let mut places: Vec<(usize, usize)> = causes
        .iter()
        .map(|cause| {
            let (number, line) =
                text.lines().enumerate().find(|(_, line)| line.contains(cause)).unwrap();
            let value = |at: usize| at + line[at..].len() - line[at..].trim_start().len() + 1;
            // A key that is not allowed stands where it begins, anything else where its value begins.
            let column =
                if *cause == "max_headers =" { 1 } else { value(line.find('=').unwrap() + 1) };
            (number + 1, column)
        })
        .collect();
    places.sort_unstable();
    for command in ["check", "serve"] {
        let said = refused(&run(&[command, "--config", "bad.toml"], dir.path()));
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("bad.toml")).collect();
        assert_eq!(lines.len(), causes.len(), "{said}");
        for (line, (number, column)) in lines.iter().zip(&places) {
            assert!(line.contains(&format!("bad.toml:{number}:{column}: ")), "{places:?}\n{said}");
        }
    }
    fs::write(dir.path().join("bad.toml"), "# one\nlisten = 127.0.0.1:8080\n").unwrap();
    let said = refused(&run(&["check", "--config", "bad.toml"], dir.path()));
    assert!(said.contains("bad.toml:2:10: listen: put it in quotes"), "{said}");
}

#[test]
fn without_a_configuration_the_ways_to_one_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["serve", "check"] {
        let said = refused(&run(&[command], dir.path()));
        for way in ["--config", "AGENT_METRICS_CONFIG", "agent-metrics.toml"] {
            assert!(said.contains(way), "{command}: no {way} in {said}");
        }
    }
    let said = refused(&run(&["serve", "--config", "none.toml"], dir.path()));
    assert!(said.contains("none.toml"), "{said}");
}

#[test]
fn the_file_may_come_from_the_environment_or_the_working_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("named.toml"), Setup::open().toml()).unwrap();
    let mut command = Command::new(BINARY);
    without_our_variables(&mut command);
    command.arg("check").current_dir(dir.path()).env("AGENT_METRICS_CONFIG", "named.toml");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", printed(&output));

    fs::rename(dir.path().join("named.toml"), dir.path().join("agent-metrics.toml")).unwrap();
    let output = run(&["check"], dir.path());
    assert!(output.status.success(), "{}", printed(&output));
}

#[test]
fn flag_goes_before_variable_goes_before_file() {
    let setup = Setup::open().line("listen = \"192.0.2.1:9\"");
    let by_variable = Launch::config(&setup.toml())
        .listen(None)
        .env("AGENT_METRICS_LISTEN", "127.0.0.1:0")
        .start();
    assert_eq!(Request::get("/readyz").send(by_variable.addr()).status, 200);
    let by_flag = Launch::config(&setup.toml()).env("AGENT_METRICS_LISTEN", "192.0.2.1:9").start();
    assert_eq!(Request::get("/readyz").send(by_flag.addr()).status, 200);
}

#[test]
fn several_addresses_are_all_listened_on() {
    let setup = Setup::open().line("listen = [\"127.0.0.1:0\", \"127.0.0.2:0\"]");
    let server = Launch::config(&setup.toml()).listen(None).start();
    server.log().wait_for("listening on http://127.0.0.2:");
    let addresses = server.addresses();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in addresses {
        assert_ne!(address.port(), 0);
        assert_eq!(Request::get("/readyz").send(address).status, 200, "{address}");
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = address.to_string();
    let mut server = Launch::config(&Setup::open().toml()).listen(Some(&listen)).spawn();
    let (status, log) = server.wait_with_log();
    assert!(!status.success() && status.code() != Some(101), "{log}");
    assert!(log.contains(&listen), "{log}");
    let next = address.port().checked_add(1).unwrap_or(address.port() - 1);
    assert!(log.contains(&format!("--listen 127.0.0.1:{next}")), "{log}");
}

#[test]
fn beyond_loopback_somebody_must_have_said_who_may_look() {
    let silent = format!(
        "[[pools]]\nid = \"p\"\nkeys = [{{ app_key = \"k\", app_secret_sha256 = \"{}\" }}]\n",
        sha256("secret")
    );
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let mut server = Launch::config(&silent).listen(Some(listen)).spawn();
        let (status, log) = server.wait_with_log();
        assert!(!status.success());
        assert!(log.contains("open = true") && log.contains("token"), "{log}");
    }
    for setup in [Setup::open(), Setup::guarded()] {
        let server = Launch::config(&setup.toml()).listen(Some("0.0.0.0:0")).start();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.addr().port()));
        assert_eq!(Request::get("/livez").send(address).status, 200);
    }
}

#[test]
fn start_up_says_what_there_is_and_heartbeats_say_nothing() {
    let server = Server::start(&Setup::open().toml());
    let page = format!("the page: http://{}/", server.addr());
    for word in ["pool-a", "pool-b", "open", &page] {
        server.log().wait_for(word);
    }
    let mut conn = Conn::open(server.addr());
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    let lines = server.log().text().lines().count();
    for number in 0..100 {
        let agent = format!("agent-{}", number % 10);
        assert_eq!(conn.ping(&agent, &heartbeat(1.0)).status, 200);
    }
    let mut server = server;
    server.signal(rustix::process::Signal::TERM);
    let (_, log) = server.wait_with_log();
    // What it says of its end may be a few lines; of each heartbeat one would be a hundred.
    assert!(log.lines().count() < lines + 50, "{log}");
    assert!(!log.contains("/ping") && !log.contains("heartbeat"), "{log}");

    let guarded = Server::start(&Setup::guarded().toml());
    guarded.log().wait_for("token");
}

/// The value of the first `name = "value"` in a file.
fn value_of(text: &str, name: &str) -> String {
    let found = text.lines().find_map(|line| {
        let at = line.match_indices(name).map(|(at, _)| at).find(|&at| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '#')
        })?;
        let rest = line[at + name.len()..].trim_start().strip_prefix('=')?.trim_start();
        rest.strip_prefix('"')?.split('"').next().map(str::to_owned)
    });
    found.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// The word of `told` whose SHA-256 is `hash`.
fn preimage(told: &str, hash: &str) -> String {
    let words = told.split(|c: char| c.is_whitespace() || "\"'`=:,;()".contains(c));
    let found = words.map(str::trim).find(|word| sha256(word) == hash);
    found.unwrap_or_else(|| panic!("nothing in {told} has the hash {hash}")).to_owned()
}
