//! `agent-metrics check`: explains a configuration file. Reads and prints; starts nothing.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::args::ConfigFile;
use super::{Failure, print};
use crate::server::auth::Viewer;
use crate::server::config::{Config, Overrides, PoolConfig, is_loopback, settable_limits};
use crate::server::limits::Limits;
use crate::wire::id::PoolIndex;

/// Prints what the file means. A reader that closes the pipe early has read enough.
pub(super) fn run(file: &ConfigFile) -> Result<(), Failure> {
    let path = file.path()?;
    let config = Config::load(&path, &Overrides::default())?;
    match print(&describe(&config, &path)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

fn describe(config: &Config, path: &Path) -> String {
    let gate = &config.gate;
    let reach = |address: &SocketAddr| match is_loopback(address) {
        true => format!("  {address}, from this machine only\n"),
        false => format!("  {address}, from other machines too\n"),
    };
    let listen: String = config.listen.iter().map(reach).collect();
    let pool = |pool: &PoolConfig| {
        let keys = pool.app_keys.len();
        let plural = if keys == 1 { "" } else { "s" };
        format!("  {} ({:?}), {keys} key{plural}\n", pool.id, pool.name)
    };
    let pools: String = config.pools.iter().map(pool).collect();
    format!(
        "{} is valid.\n\n\
         Listens on\n{listen}\n\
         Pools\n{pools}\n\
         Who may see the dashboards\n{}\n\
         Agents are removed {} after their last heartbeat.\n\n\
         Browsers and proxies\n  \
         host names beside IP addresses and localhost: {}\n  \
         origins beside the server's own: {}\n  \
         trusted proxies: {}\n\n\
         {}",
        path.display(),
        viewers(config),
        humantime::format_duration(config.evict_after),
        list(&gate.allowed_hosts),
        list(&gate.allowed_origins),
        list(&gate.trusted_proxies),
        limits(&config.limits),
    )
}

fn viewers(config: &Config) -> String {
    if config.gate.is_open {
        return "  anyone, without a token: all pools (open = true)\n".to_owned();
    }
    let mut text = String::new();
    let has = |viewer| config.gate.viewers.iter().any(|(own, _)| *own == viewer);
    if has(Viewer::All) {
        text.push_str("  whoever has the token of [viewers]: all pools\n");
    }
    for (number, pool) in config.pools.iter().enumerate() {
        if has(Viewer::Pool(PoolIndex(number))) {
            text.push_str(&format!("  whoever has the token of {}: that pool\n", pool.id));
        }
    }
    if text.is_empty() {
        text.push_str(
            "  nobody: there is no viewer token, and [viewers] does not have open = true\n",
        );
    }
    text
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn limits(limits: &Limits) -> String {
    if *limits == Limits::default() {
        return "All limits are at their defaults.\n".to_owned();
    }
    let changed = settable_limits(limits)
        .into_iter()
        .zip(settable_limits(&Limits::default()))
        .filter(|(changed, default)| changed != default)
        .map(|((name, value), (_, default))| format!("  {name} is {value}, default {default}\n"));
    format!("Limits that differ from the defaults\n{}", changed.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::auth::SecretDigest;

    fn described(text: &str) -> String {
        let path = Path::new("test.toml");
        describe(&Config::parse(text, path, &Overrides::default()).unwrap(), path)
    }

    #[test]
    fn a_file_is_explained_without_keys_or_digests() {
        let digest = SecretDigest::of("x").to_hex();
        let other = SecretDigest::of("y").to_hex();
        let text = described(&format!(
            r#"
listen = ["127.0.0.1:8080", "0.0.0.0:80"]
allowed_hosts = ["m.example:8443"]
trusted_proxies = ["10.0.0.0/8", "::1"]
viewers.token_sha256 = "{digest}"
[[pools]]
id = "a"
name = "Build farm"
keys = [
    {{ app_key = "key-one", app_secret_sha256 = "{digest}" }},
    {{ app_key = "key-two", app_secret_sha256 = "{digest}" }},
]
[[pools]]
id = "b"
keys = [{{ app_key = "key-three", app_secret_sha256 = "{digest}" }}]
viewer_token_sha256 = "{other}"
[limits]
max_pool_bytes = "128 MiB"
"#
        ));
        assert_eq!(
            text,
            r#"test.toml is valid.

Listens on
  127.0.0.1:8080, from this machine only
  0.0.0.0:80, from other machines too

Pools
  a ("Build farm"), 2 keys
  b ("b"), 1 key

Who may see the dashboards
  whoever has the token of [viewers]: all pools
  whoever has the token of b: that pool

Agents are removed 5m after their last heartbeat.

Browsers and proxies
  host names beside IP addresses and localhost: m.example:8443
  origins beside the server's own: none
  trusted proxies: 10.0.0.0/8, ::1/128

Limits that differ from the defaults
  max_pool_bytes is 128 MiB, default 32 MiB
"#
        );
    }

    #[test]
    fn open_viewing_and_closed_viewing_are_told_apart() {
        let digest = SecretDigest::of("x").to_hex();
        let pools = format!(
            "[[pools]]\nid = 'a'\nkeys = [{{ app_key = 'k', app_secret_sha256 = '{digest}' }}]"
        );
        let open = described(&format!("viewers.open = true\n{pools}"));
        assert!(open.contains("anyone, without a token"), "{open}");
        let closed = described(&pools);
        assert!(closed.contains("nobody: there is no viewer token"), "{closed}");
        assert!(closed.contains("All limits are at their defaults."), "{closed}");
    }

    #[test]
    fn an_error_is_the_configurations_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.toml");
        std::fs::write(&path, "\nlisten = 5").unwrap();
        let error = run(&ConfigFile { config: Some(path.clone()) }).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:2:10: ", path.display())), "{error}");
    }
}
