//! What a file is read as, and the error for each mistake in it.

use super::access::MAX_POOLS;
use super::secrets::MAX_BYTES;
use super::*;
use crate::server::auth::Viewer;
use crate::wire::id::PoolIndex;

fn hex(text: &str) -> String {
    SecretDigest::of(text).to_hex()
}

/// A file whose one pool stands from line 1 on.
fn with_pool(rest: &str) -> String {
    let digest = hex("secret");
    format!(
        "pools = [{{ id = \"p\", keys = [{{ app_key = \"k\", app_secret_sha256 = \"{digest}\" }}] }}]\n{rest}"
    )
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("dir/test.toml"), &Overrides::default())
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// The error of `text` has a line that begins with `place` (`:line`, or empty) and has `words`.
fn assert_error(text: &str, place: &str, words: &[&str]) {
    let error = error(text);
    let start = format!("dir/test.toml{place}:");
    let found = error
        .lines()
        .any(|line| line.starts_with(&start) && words.iter().all(|&word| line.contains(word)));
    assert!(found, "no {words:?} at {start} in\n{error}");
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_whole_file_is_read() {
    let text = format!(
        r#"
listen = ["0.0.0.0:8080", "[::1]:9000"]
evict_after = "90s"
allowed_hosts = ["metrics.example.org"]
allowed_origins = ["https://board.example.org"]
trusted_proxies = ["10.0.0.0/8", "192.0.2.1"]

[viewers]
token_sha256 = "{all}"

[[pools]]
id = "pool-a"
name = "Build farm"
keys = [
    {{ app_key = "one", app_secret_sha256 = "{one}" }},
    {{ app_key = "two", app_secret_sha256 = "{two}" }},
]
viewer_token_sha256 = "{a}"

[[pools]]
id = "pool-b"
keys = [{{ app_key = "three", app_secret_sha256 = "{one}" }}]

[limits]
max_pool_bytes = "128 MiB"
max_connections = 32
lag_timeout = "2m"
lag_min_bytes = 4096
"#,
        all = hex("all"),
        one = hex("one"),
        two = hex("two"),
        a = hex("a"),
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.listen, addresses(&["0.0.0.0:8080", "[::1]:9000"]));
    assert_eq!(config.evict_after, Duration::from_secs(90));
    assert!(!config.gate.is_open);
    let names: Vec<_> =
        config.pools.iter().map(|pool| (pool.id.as_str(), pool.name.as_str())).collect();
    assert_eq!(names, [("pool-a", "Build farm"), ("pool-b", "pool-b")]);

    let gate = &config.gate;
    assert_eq!(gate.agent("one", "one"), Some(PoolIndex(0)));
    assert_eq!(gate.agent("two", "two"), Some(PoolIndex(0)));
    assert_eq!(gate.agent("three", "one"), Some(PoolIndex(1)));
    assert_eq!(gate.keys.len(), 3);
    assert_eq!(gate.viewer(Some("all")), Some(Viewer::All));
    assert_eq!(gate.viewer(Some("a")), Some(Viewer::Pool(PoolIndex(0))));
    assert_eq!(gate.viewer(None), None);
    assert!(gate.host_allowed("metrics.example.org:8080"));
    assert!(gate.origin_allowed("https://board.example.org", "x.example", None));
    assert!(gate.trusts([10, 9, 8, 7].into()) && gate.trusts([192, 0, 2, 1].into()));

    assert_eq!(config.limits.max_pool_bytes, 128 * 1_024 * 1_024);
    let defaults = settable_limits(&Limits::default());
    let changed: Vec<_> = settable_limits(&config.limits)
        .into_iter()
        .filter(|limit| !defaults.contains(limit))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(changed, ["max_connections", "max_pool_bytes", "lag_timeout", "lag_min_bytes"]);
}

#[test]
fn missing_settings_have_their_defaults() {
    let config = parse(&with_pool("")).unwrap();
    assert_eq!(config.listen, addresses(&["127.0.0.1:8080", "[::1]:8080"]));
    assert_eq!(config.evict_after, DEFAULT_EVICT_AFTER);
    assert_eq!(config.limits, Limits::default());
    // On loopback, without [viewers], agents may report and nobody may see the dashboards.
    assert!(!config.gate.is_open && config.gate.viewer(None).is_none());
    assert_eq!(settable_limits(&config.limits).len(), 11);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    assert_error(
        &with_pool("evict_aftr = '5m'"),
        ":2",
        &["unknown field `evict_aftr`", "evict_after"],
    );
    assert_error(
        &with_pool("\n[limits]\nmax_connection = 5"),
        ":4",
        &["unknown field `max_connection`"],
    );
    assert_error(&with_pool("[viewers]\ntoken = 'x'"), ":3", &["unknown field `token`"]);
    assert_error("[[pools]]\nid = 'p'\nkey = []", ":3", &["unknown field `key`"]);
    let plain = "[[pools]]\nid = 'p'\nkeys = [\n{ app_key = 'k', app_secret = 'hunter2' }]";
    assert_error(plain, ":4", &["unknown field `app_secret`", "app_secret_sha256"]);
    assert_error("listen = [", ":1", &[]);
    assert_error("a = 1\na = 2", ":2", &["duplicate key"]);
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_files_order_with_line_and_column() {
    let text = r#"
limits = { max_dashboards = 0, "max_é" = 1, max_pool_bytes = "63 KiB", head_timeout = 7 }
listen = ["127.0.0.1:80", "localhost"]
evict_after = 1.5
allowed_hosts = ["é", 5]
pools = [
    { id = "p", keys = [{ app_key = "k" }, { app_key = 7, app_secret_sha256 = "x" }] },
    { name = "", viewer_token_file = "none" },
]
evict_aftr = "5m"

[viewers]
token_sha256 = true
open = "yes"
"#;
    let told = [
        ":2:29: [limits] max_dashboards: 0 is out of range, 1 to 100000 is allowed",
        ":2:32: [limits]: unknown field `max_é`, expected one of `max_connections`, ",
        ":2:62: [limits] max_pool_bytes: 63 KiB is out of range, 64 KiB to 64 GiB is allowed",
        ":2:72: [limits]: `head_timeout` cannot be set any more, remove it: a request's head has 10 s",
        ":3:27: listen \"localhost\": must be an IP address and a port",
        ":4:15: evict_after: must be a text with a unit, such as",
        ":5:18: allowed_hosts \"é\": must be a host name",
        ":5:23: allowed_hosts: invalid type: integer, expected a text in quotes",
        ":7:25: [[pools]] \"p\" app_key \"k\": give app_secret_sha256 or app_secret_file",
        ":7:56: [[pools]] \"p\" keys app_key: invalid type: integer, expected a text in quotes",
        ":7:79: [[pools]] \"p\" keys app_secret_sha256: must be a SHA-256",
        ":8:5: [[pools]] number 2: missing field `id`",
        ":8:5: [[pools]] number 2: missing field `keys`",
        ":8:14: [[pools]] number 2 name: must be 1 to 128 characters",
        ":8:38: [[pools]] number 2 viewer_token_file: cannot read dir/none: ",
        ":10:1: unknown field `evict_aftr`, expected one of `listen`, `evict_after`, ",
        ":13:16: [viewers] token_sha256: invalid type: boolean, expected a text in quotes",
        ":14:8: [viewers] open: invalid type: string, expected true or false",
    ];
    let error = error(text);
    let lines: Vec<&str> = error.lines().collect();
    for (number, words) in told.iter().enumerate() {
        let start = format!("dir/test.toml{words}");
        assert!(lines.get(number).is_some_and(|line| line.starts_with(&start)), "{start}\n{error}");
    }
    assert_eq!(lines.len(), told.len(), "{error}");
}

#[test]
fn a_limit_that_cannot_be_set_any_more_is_an_error_that_says_what_holds_instead() {
    for (key, instead) in [
        ("answer_timeout", "`lag_timeout`"),
        ("lag_max", "`lag_timeout`"),
        ("max_head_bytes", "8 KiB"),
        ("max_headers", "64 headers"),
        ("max_body_bytes", "64 KiB"),
        ("head_timeout", "10 s"),
        ("body_timeout", "10 s"),
        ("idle_timeout", "75 s"),
        ("worker_timeout", "5 s"),
        ("max_in_flight", "1,024"),
        ("max_tasks_per_heartbeat", "256"),
    ] {
        let words = [key, "cannot be set any more", "remove it", instead];
        assert_error(&with_pool(&format!("[limits]\n{key} = '5m'")), ":3:1", &words);
    }
    assert_error(&with_pool("lag_max = '5m'"), ":2:1", &["unknown field `lag_max`"]);
}

#[test]
fn a_text_without_quotes_is_an_error_that_says_so() {
    for (line, said) in [
        ("listen = 127.0.0.1:8080", ":2:10: listen: put it in quotes"),
        ("listen = localhost:8080", ":2:10: listen: put it in quotes"),
        ("listen = [::1]:8080", ":2:"),
        ("evict_after = 5m", ":2:15: evict_after: put it in quotes"),
        ("allowed_hosts = metrics.example.org", ":2:17: allowed_hosts: put it in quotes"),
        ("viewers.token_file = token.txt # here", ":2:22: viewers.token_file: put it in quotes"),
        (
            "limits.max_connections = 10,000",
            ":2:26: limits.max_connections: must be a whole number",
        ),
        ("[limits]\nmax_pool_bytes = 64 KiB", ":3:18: max_pool_bytes: put it in quotes"),
        ("[limits]\nlag_timeout = 2m", ":3:15: lag_timeout: put it in quotes"),
        ("viewers.open = yes", ":2:16: viewers.open: must be true or false"),
        ("viewers.open = True", ":2:16: viewers.open: must be true or false"),
    ] {
        let error = error(&with_pool(line));
        assert!(error.starts_with(&format!("dir/test.toml{said}")), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_hundred_mistakes_are_shown_and_the_others_counted() {
    let text: String = (0..150).map(|n| format!("key{n} = 1\n")).collect();
    let error = error(&with_pool(&text));
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 101);
    assert!(lines[99].starts_with("dir/test.toml:101:1: unknown field `key99`"), "{}", lines[99]);
    assert_eq!(lines[100], "dir/test.toml: 50 mistakes more");
}

#[test]
fn no_error_shows_a_value_that_may_be_a_secret() {
    for text in [
        "[[pools]]\nid = 'p'\nkeys = [{ app_key = 'k', app_secret = 'hunter2' }]",
        "[[pools]]\nid = 'p'\nkeys = ['k:hunter2']",
        "[[pools]]\nid = 'p'\nkeys = 'hunter2'",
        "[[pools]]\nid = 'p'\nkeys = [{ app_key = 'hunter2 ' }]",
        "[[pools]]\nid = 'p'\nkeys = [{ app_key = 'k', app_secret_sha256 = 'hunter2' }]",
        "viewers = 'hunter2'",
        "[viewers]\nopen = 'hunter2'",
        "[viewers]\ntoken_sha256 = ['hunter2']",
        "[viewers]\ntoken_sha256 = 'hunter2\n",
        "[viewers]\ntoken_sha256 = hunter2",
        "[[pools]]\nid = 'p'\nkeys = [{ app_key = k, app_secret_sha256 = hunter2 }]",
        "[limits]\nmax_connections = ['hunter2']",
    ] {
        let error = error(text);
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.lines().all(|line| line.starts_with("dir/test.toml")), "{error}");
    }
    assert_error("viewers = 'hunter2'", ":1", &["invalid type: string, expected"]);
}

#[test]
fn addresses_to_listen_on_are_numeric_and_differ() {
    for listen in ["'localhost:8080'", "':8080'", "'127.0.0.1'", "['127.0.0.1:1', '::1:2']", "''"] {
        assert_error(
            &with_pool(&format!("listen = {listen}")),
            ":2",
            &["listen", "127.0.0.1:8080"],
        );
    }
    assert_error(&with_pool("listen = []"), ":2", &["listen: must name 1 to 8 addresses"]);
    assert_error(
        &with_pool("listen = ['127.0.0.1:80', '127.0.0.1:80']"),
        ":2",
        &["127.0.0.1:80 is named twice"],
    );
    let config = parse(&with_pool("listen = ['127.0.0.1:0', '127.0.0.1:0']")).unwrap();
    assert_eq!(config.listen.len(), 2);
}

#[test]
fn beyond_loopback_the_file_must_say_who_may_see_the_dashboards() {
    let public = with_pool("listen = '0.0.0.0:8080'\n");
    assert_error(
        &public,
        ":2",
        &["listen: other machines can connect to 0.0.0.0:8080", "token_sha256", "open = true"],
    );
    assert!(parse(&format!("{public}[viewers]\nopen = true")).unwrap().gate.is_open);
    assert_error(
        &format!("{public}[viewers]\nopen = false"),
        ":2",
        &["who may see the dashboards"],
    );
    let token = hex("token");
    assert!(parse(&format!("{public}[viewers]\ntoken_sha256 = '{token}'")).is_ok());
    for address in ["192.0.2.1:80", "[::]:80", "[::ffff:192.0.2.1]:80"] {
        assert!(parse(&with_pool(&format!("listen = '{address}'"))).is_err(), "{address}");
    }
    for address in ["127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        assert!(parse(&with_pool(&format!("listen = '{address}'"))).is_ok(), "{address}");
    }
}

#[test]
fn a_pools_own_token_says_who_may_see_the_dashboards() {
    let text = format!(
        "listen = '0.0.0.0:8080'\n[[pools]]\nid = 'p'\nviewer_token_sha256 = '{}'\nkeys = [{{ app_key = 'k', app_secret_sha256 = '{}' }}]",
        hex("token"),
        hex("secret"),
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.gate.viewer(Some("token")), Some(Viewer::Pool(PoolIndex(0))));
}

#[test]
fn flags_override_the_file() {
    let overrides = |listen: &[&str], evict_after| Overrides {
        listen: addresses(listen),
        evict_after: Some(evict_after),
    };
    let text = with_pool("listen = '127.0.0.1:1'\nevict_after = '1m'");
    let path = Path::new("x.toml");
    let given = overrides(&["127.0.0.1:0"], Duration::from_secs(2));
    let config = Config::parse(&text, path, &given).unwrap();
    assert_eq!(config.listen, addresses(&["127.0.0.1:0"]));
    assert_eq!(config.evict_after, Duration::from_secs(2));

    let error = |given| Config::parse(&text, path, &given).unwrap_err().to_string();
    let public = error(overrides(&["0.0.0.0:80"], Duration::from_secs(2)));
    assert!(
        public.starts_with(
            "--listen (AGENT_METRICS_LISTEN): other machines can connect to 0.0.0.0:80 "
        ),
        "{public}"
    );
    let short = error(overrides(&[], Duration::from_millis(99)));
    assert_eq!(
        short,
        "--evict-after (AGENT_METRICS_EVICT_AFTER): 99ms is out of range, 100ms to 30days is allowed"
    );
}

#[test]
fn evict_after_is_a_time_within_reason() {
    for good in ["100ms", "5m", "30days"] {
        assert!(parse(&with_pool(&format!("evict_after = '{good}'"))).is_ok(), "{good}");
    }
    for bad in ["'99ms'", "'0s'", "'31days'"] {
        let text = with_pool(&format!("evict_after = {bad}"));
        assert_error(&text, ":2", &["evict_after: ", "100ms to 30days is allowed"]);
    }
    for bad in ["300", "'300'", "'soon'", "''", "'-5m'"] {
        let text = with_pool(&format!("evict_after = {bad}"));
        assert_error(&text, ":2", &["evict_after: must be", "\"5m\""]);
    }
    assert_error(&with_pool("evict_after = 1.5"), ":2", &["evict_after: must be", "\"5m\""]);
}

#[test]
fn hosts_origins_and_proxies_are_checked_one_by_one() {
    for (key, bad, good) in [
        ("allowed_hosts", "https://a.example", "metrics.example.org"),
        ("allowed_hosts", "*.a.example", "no wildcard"),
        ("allowed_origins", "a.example", "https://board.example.org"),
        ("allowed_origins", "null", "not null"),
        ("allowed_origins", "https://a.example/", "no path"),
        ("trusted_proxies", "proxy.example", "10.0.0.0/8"),
        ("trusted_proxies", "10.0.0.0/33", "10.0.0.7"),
    ] {
        let text = with_pool(&format!("{key} = [\n  '{bad}',\n]"));
        assert_error(&text, ":3", &[key, bad, good]);
    }
}

#[test]
fn there_are_pools_with_ids_that_differ() {
    assert_error("", ":1:1", &["[[pools]]: there is none"]);
    assert_error("evict_after = '5m'\n", ":2:1", &["[[pools]]: there is none"]);
    assert_error("pools = []", ":1:9", &["[[pools]]: there is none"]);
    assert_error("[[pools]]\nname = 'x'", ":1", &["missing field `id`"]);
    assert_error(
        "[[pools]]\nid = 'a b'",
        ":2",
        &["[[pools]] number 1 id \"a b\": must be 1 to 128"],
    );
    let second = with_pool("").replace("}]\n", "}, { id = 'p' }]\n");
    assert_error(&second, ":1", &["[[pools]] number 2 id", "has the id p, ids must differ"]);
    for name in ["", "\\u0007", &"x".repeat(129)] {
        let text = format!("[[pools]]\nid = 'p'\nname = \"{name}\"");
        assert_error(&text, ":3", &["[[pools]] \"p\" name: must be 1 to 128 characters"]);
    }
    let many: String = (0..=MAX_POOLS).map(|n| format!("[[pools]]\nid = 'p{n}'\n")).collect();
    assert_error(&many, "", &["1001 are too many, 1000 are allowed"]);
}

#[test]
fn a_key_belongs_to_one_pool_and_has_one_secret() {
    let pool = |keys: &str| format!("[[pools]]\nid = 'p'\nkeys = [\n{keys}\n]");
    let digest = hex("s");
    assert_error(&pool(""), ":3", &["[[pools]] \"p\" keys: no agent could report"]);
    assert_error("[[pools]]\nid = 'p'", ":1", &["[[pools]] \"p\": missing field `keys`"]);
    assert_error(
        &pool("{ app_key = 'k' }"),
        ":4",
        &["[[pools]] \"p\" app_key \"k\": give app_secret_sha256 or app_secret_file"],
    );
    assert_error(
        &pool(&format!(
            "{{ app_key = 'k', app_secret_sha256 = '{digest}', app_secret_file = 'f' }}"
        )),
        ":4",
        &["give app_secret_sha256 or app_secret_file, not both"],
    );
    for bad in ["", "a b", "é", &"k".repeat(129)] {
        let text = pool(&format!("{{ app_key = '{bad}', app_secret_sha256 = '{digest}' }}"));
        assert_error(&text, ":4", &["app_key: must be 1 to 128 visible ASCII characters"]);
    }
    for bad in ["", "xyz", &digest[1..], &format!("{digest}0"), &"g".repeat(64)] {
        let text = pool(&format!("{{ app_key = 'k', app_secret_sha256 = '{bad}' }}"));
        assert_error(
            &text,
            ":4",
            &["app_secret_sha256: must be a SHA-256 in 64 hexadecimal digits"],
        );
    }
    let empty = pool(&format!("{{ app_key = 'k', app_secret_sha256 = '{}' }}", hex("")));
    assert_error(&empty, ":4", &["SHA-256 of the empty text"]);

    let key = format!("{{ app_key = 'k', app_secret_sha256 = '{digest}' }}");
    let twice = pool(&format!("{key},\n{key}"));
    assert_error(&twice, ":5", &["app_key \"k\": [[pools]] \"p\" has this app_key already"]);
    let across = format!("{}\n[[pools]]\nid = 'q'\nkeys = [{key}]", pool(&key));
    assert_error(&across, ":8", &["[[pools]] \"q\" app_key \"k\": [[pools]] \"p\" has this"]);
}

#[test]
fn viewer_tokens_exclude_one_another_and_open_viewing() {
    let token = hex("token");
    let both = format!("[viewers]\ntoken_sha256 = '{token}'\ntoken_file = 'f'");
    assert_error(
        &with_pool(&both),
        ":4",
        &["[viewers] token_file: give token_sha256 or token_file, not both"],
    );
    let open = format!("[viewers]\nopen = true\ntoken_sha256 = '{token}'");
    assert_error(
        &with_pool(&open),
        ":3",
        &["[viewers] open: viewing is open, and yet [viewers] token_sha256 requires a token"],
    );
    let pool_token = |viewers: &str| {
        format!(
            "{viewers}\n[[pools]]\nid = 'p'\nviewer_token_sha256 = '{token}'\nkeys = [{{ app_key = 'k', app_secret_sha256 = '{token}' }}]"
        )
    };
    assert_error(
        &pool_token("viewers.open = true"),
        ":1",
        &["[viewers] open", "[[pools]] \"p\" viewer_token_sha256 requires a token"],
    );
    assert_error(
        &pool_token(&format!("viewers.token_sha256 = '{token}'")),
        ":4",
        &["[[pools]] \"p\" viewer_token_sha256: [viewers] token_sha256 has the same token"],
    );
    assert_error(&with_pool("[viewers]\ntoken_sha256 = 'x'"), ":3", &["64 hexadecimal digits"]);
}

#[test]
fn secrets_come_from_files_beside_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.toml");
    let digest = hex("x");
    let load = |name: &str, content: Option<&[u8]>| {
        if let Some(content) = content {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let text = format!(
            "[viewers]\ntoken_file = '{name}'\n[[pools]]\nid = 'p'\nkeys = [{{ app_key = 'k', app_secret_sha256 = '{digest}' }}]"
        );
        fs::write(&path, text).unwrap();
        Config::load(&path, &Overrides::default())
    };
    let token = "t0ken-of-16-char";
    for end in ["", "\n", "\r\n", "\n\n"] {
        let content = format!("{token}{end}");
        let config = load("token", Some(content.as_bytes())).unwrap();
        assert_eq!(config.gate.viewer(Some(token)), Some(Viewer::All), "{content:?}");
        assert_eq!(config.gate.viewer(Some(&content)).is_some(), end.is_empty());
    }
    let long = vec![b'x'; MAX_BYTES + 1];
    assert!(load("token", Some(&long[1..])).is_ok());
    let bad_ends = [&b" "[..], b" b", b"\nb", b";b", b"\"", b"\xff"];
    let bad = bad_ends.map(|end| [token.as_bytes(), end].concat());
    let short = &token.as_bytes()[1..];
    for bad in [&b""[..], b"\n", short, &[short, b"\n\n"].concat(), &long]
        .into_iter()
        .chain(bad.iter().map(Vec::as_slice))
    {
        let error = load("token", Some(bad)).unwrap_err().to_string();
        assert!(error.contains(":2:14: [viewers] token_file: "), "{error}");
        let file = dir.path().join("token");
        assert!(error.contains(&format!("{} must hold a token", file.display())), "{error}");
    }
    let error = load("missing", None).unwrap_err().to_string();
    assert!(error.contains("token_file: cannot read "), "{error}");
    assert!(error.contains("missing: No such file"), "{error}");
}

#[test]
fn an_agents_secret_comes_from_a_file_too_and_may_hold_what_no_cookie_can() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "a;b-of-16-chars.\n").unwrap();
    let text = "[[pools]]\nid = 'p'\nkeys = [{ app_key = 'k', app_secret_file = 'secret' }]";
    let path = dir.path().join("server.toml");
    let config = Config::parse(text, &path, &Overrides::default()).unwrap();
    assert_eq!(config.gate.agent("k", "a;b-of-16-chars."), Some(PoolIndex(0)));
    fs::write(dir.path().join("secret"), "a;b-of-15-chars\n").unwrap();
    let error = Config::parse(text, &path, &Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("secret must hold a secret of 16 to 1024 visible"), "{error}");
}

#[test]
fn limits_have_bounds_and_units() {
    for (line, words) in [
        ("lag_min_bytes = 0", "0 B is out of range, 1 B to 16 MiB is allowed"),
        ("lag_min_bytes = '17 MiB'", "17 MiB is out of range"),
        ("lag_min_bytes = '8 KB'", "must be a whole number of bytes, or a text such as"),
        ("max_dashboards = 100001", "100001 is out of range, 1 to 100000 is allowed"),
        ("max_dashboards = '64'", "must be a whole number"),
        ("max_dashboards = -1", "must be a whole number"),
        ("max_dashboards = 99999999999999999999", "is out of range, 1 to 100000 is allowed"),
        ("lag_timeout = '0s'", "0s is out of range, 100ms to 1day is allowed"),
        ("lag_timeout = 10", "must be a text with a unit"),
        ("max_connections = 0", "0 is out of range"),
        ("max_agent_heartbeats_per_second = 0", "0 is out of range, 1 to 1000000 is allowed"),
        ("max_buffered_bytes = '1023 KiB'", "1023 KiB is out of range, 1 MiB to"),
        ("max_pool_bytes = '63 KiB'", "63 KiB is out of range, 64 KiB to"),
    ] {
        let key = line.split_once(' ').unwrap().0;
        let text = with_pool(&format!("[limits]\n{line}"));
        assert_error(&text, ":3", &[&format!("[limits] {key}: "), words]);
    }
    for line in ["max_dashboards = 1", "max_dashboards = 100000", "lag_timeout = '100ms'"] {
        assert!(parse(&with_pool(&format!("[limits]\n{line}"))).is_ok(), "{line}");
    }
}

#[test]
fn a_missing_file_is_named_and_without_a_name_the_error_lists_the_ways() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nope.toml");
    let error = Config::load(&missing, &Overrides::default()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read {}: ", missing.display())), "{error}");
    let error = find(None, None, &missing).unwrap_err().to_string();
    for way in ["--config", "AGENT_METRICS_CONFIG", "agent-metrics.toml", "init", "--dev"] {
        assert!(error.contains(way), "{way}: {error}");
    }
    fs::write(&missing, with_pool("")).unwrap();
    assert_eq!(find(None, None, &missing).unwrap(), missing);
    assert!(Config::load(&missing, &Overrides::default()).is_ok());
    fs::write(&missing, "#".repeat(MAX_FILE_BYTES + 1)).unwrap();
    let error = Config::load(&missing, &Overrides::default()).unwrap_err().to_string();
    assert!(error.ends_with("nope.toml: larger than 1024 KiB"), "{error}");
}

/// A mistaken entry hides no other mistake of the list.
#[test]
fn a_mistaken_address_hides_no_other_mistake() {
    let text = "listen = ['x', '127.0.0.1:1', '127.0.0.1:1']";
    assert_error(text, ":1:11", &["must be an IP address"]);
    assert_error(text, ":1:10", &["127.0.0.1:1 is named twice"]);
    let public = "listen = ['x', '0.0.0.0:1']";
    assert_error(public, ":1:10", &["other machines can connect to 0.0.0.0:1"]);
}

#[test]
fn the_flag_overrides_the_variable_and_an_empty_one_counts_as_unset() {
    let none = Path::new("no-such-file");
    let flag = Some(PathBuf::from("flag"));
    assert_eq!(find(flag, Some("variable".into()), none).unwrap(), Path::new("flag"));
    assert_eq!(find(None, Some("variable".into()), none).unwrap(), Path::new("variable"));
    assert!(find(None, Some("".into()), none).is_err());
    assert!(find(None, None, none).is_err());
}

#[test]
fn dev_is_loopback_with_a_well_known_key_and_open_viewing() {
    let config = Config::dev(&Overrides::default()).unwrap();
    assert_eq!(config.listen, addresses(&["127.0.0.1:8080", "[::1]:8080"]));
    assert_eq!(config.pools[0].id.as_str(), "local");
    assert_eq!(config.gate.agent("dev", "dev"), Some(PoolIndex(0)));
    assert!(config.gate.is_open && config.gate.viewer(None) == Some(Viewer::All));

    let listen =
        |text: &str| Config::dev(&Overrides { listen: addresses(&[text]), ..Overrides::default() });
    for loopback in ["127.0.0.1:0", "[::1]:9999", "127.1.1.1:80"] {
        assert_eq!(listen(loopback).unwrap().listen, addresses(&[loopback]));
    }
    for other in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080"] {
        let error = listen(other).unwrap_err().to_string();
        assert!(error.starts_with(&format!("--listen (AGENT_METRICS_LISTEN): {other} is not")));
        assert!(error.contains("well-known secret") && error.contains("init"), "{error}");
    }
}
