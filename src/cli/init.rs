//! `agent-metrics init`: writes a configuration file with new random secrets, of which it holds only
//! digests, and shows the secrets once.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::args::InitArgs;
use super::print;
use crate::server::auth::SecretDigest;
use crate::server::config::{DEFAULT_FILE, DEFAULT_PORT, settable_limits};
use crate::server::limits::Limits;

/// Random bytes of a secret: 256 bits, so that a fast hash of it cannot be reversed.
const SECRET_BYTES: usize = 32;

/// Random bytes of an app key, which is not secret; enough that two files differ.
const KEY_BYTES: usize = 4;

/// The file without its secrets and limits.
const TEMPLATE: &str = include_str!("init.toml");

/// Why there is no new file.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error(
        "{} exists and stays as it is; name another file with --output, or move it away",
        .0.display()
    )]
    Exists(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot get random bytes from the system: {0}")]
    Random(getrandom::Error),
    /// Nobody would know the file's secrets.
    #[error(
        "cannot show the secrets on standard output ({source}), so {} was removed again",
        path.display()
    )]
    Output { path: PathBuf, source: io::Error },
}

/// Writes the file, then prints secrets and next steps.
pub(super) fn run(args: &InitArgs) -> Result<(), InitError> {
    run_printing(args, print)
}

fn run_printing(
    args: &InitArgs,
    print: impl FnOnce(&str) -> io::Result<()>,
) -> Result<(), InitError> {
    let path = &args.output;
    let secrets = Secrets::draw().map_err(InitError::Random)?;
    write_new(path, &secrets.file())?;
    print(&secrets.instructions(path)).map_err(|source| {
        // A file that cannot be removed does no harm: nobody knows its secrets.
        let _ = fs::remove_file(path);
        InitError::Output { path: path.clone(), source }
    })
}

/// Writes a file that only its owner can read. `create_new` also refuses a dangling link.
fn write_new(path: &Path, content: &str) -> Result<(), InitError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::Exists(path.to_owned()),
        _ => InitError::Write { path: path.to_owned(), source },
    })?;
    file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| {
        let _ = fs::remove_file(path);
        InitError::Write { path: path.to_owned(), source }
    })
}

struct Secrets {
    app_key: String,
    app_secret: String,
    viewer_token: String,
}

impl Secrets {
    fn draw() -> Result<Self, getrandom::Error> {
        Ok(Self {
            app_key: format!("key-{}", random_hex::<KEY_BYTES>()?),
            app_secret: random_hex::<SECRET_BYTES>()?,
            viewer_token: random_hex::<SECRET_BYTES>()?,
        })
    }

    fn file(&self) -> String {
        let mut text = TEMPLATE.to_owned();
        for (name, value) in [
            ("<port>", DEFAULT_PORT.to_string()),
            ("<app_key>", self.app_key.clone()),
            ("<app_secret_sha256>", SecretDigest::of(&self.app_secret).to_hex()),
            ("<token_sha256>", SecretDigest::of(&self.viewer_token).to_hex()),
        ] {
            text = text.replace(name, &value);
        }
        for (name, default) in settable_limits(&Limits::default()) {
            let value = if default.bytes().all(|byte| byte.is_ascii_digit()) {
                default
            } else {
                format!("\"{default}\"")
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# {name} = {value}");
        }
        text
    }

    /// The secrets and next steps, which are shown once.
    fn instructions(&self, path: &Path) -> String {
        let Self { app_key, app_secret, viewer_token } = self;
        let file = path.to_string_lossy();
        let config = if file == DEFAULT_FILE {
            String::new()
        } else {
            format!(" --config {}", shell_word(&file))
        };
        format!(
            r#"Wrote {file}. It contains only hashes of these, so save them now:

  app key       {app_key}
  app secret    {app_secret}
  viewer token  {viewer_token}

Start the server:

  agent-metrics serve{config}

Send a heartbeat from another terminal:

  curl -X POST http://localhost:{DEFAULT_PORT}/api/v1/agents/agent-1/ping \
    -H "X-App-Key: {app_key}" \
    -H "X-App-Secret: {app_secret}" \
    -d '{{"status":"busy","cpu_usage":45.5,"memory_usage":62.3}}'

Or let this machine report itself:

  AGENT_METRICS_APP_SECRET={app_secret} \
    agent-metrics agent --server http://localhost:{DEFAULT_PORT} --app-key {app_key}

Then open http://localhost:{DEFAULT_PORT}/ and log in with the viewer token.
"#
        )
    }
}

fn random_hex<const BYTES: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// `text` as one word of a POSIX shell.
fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::server::auth::Viewer;
    use crate::server::config::{Config, Overrides};
    use crate::wire::id::PoolIndex;

    /// The word after `label` in what was printed.
    fn shown<'a>(text: &'a str, label: &str) -> &'a str {
        let line = text.lines().find(|line| line.trim().starts_with(label)).unwrap();
        line.split_whitespace().last().unwrap()
    }

    fn init(path: &Path) -> Result<String, InitError> {
        let mut printed = String::new();
        let args = InitArgs { output: path.to_owned() };
        run_printing(&args, |text| {
            printed.push_str(text);
            Ok(())
        })?;
        Ok(printed)
    }

    #[test]
    fn what_is_shown_fits_the_file_and_is_not_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.toml");
        let printed = init(&path).unwrap();
        let (key, secret, token) =
            (shown(&printed, "app key"), shown(&printed, "app secret"), shown(&printed, "viewer"));
        let config = Config::load(&path, &Overrides::default()).unwrap();
        assert_eq!(config.gate.agent(key, secret), Some(PoolIndex(0)));
        assert_eq!(config.gate.viewer(Some(token)), Some(Viewer::All));
        assert!(!config.gate.is_open);
        assert_eq!(secret.len(), 2 * SECRET_BYTES);

        let file = fs::read_to_string(&path).unwrap();
        assert!(!file.contains(secret) && !file.contains(token));
        assert!(!file.contains('<'), "all placeholders are replaced");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(printed.contains(&format!("serve --config {}", path.display())), "{printed}");
    }

    #[test]
    fn the_commented_limits_are_the_defaults_and_parse() {
        let text = Secrets::draw().unwrap().file();
        let (head, limits) = text.split_once("[limits]\n").unwrap();
        let text = format!("{head}[limits]\n{}", limits.replace("# ", ""));
        let config = Config::parse(&text, Path::new("x"), &Overrides::default()).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(limits.lines().count(), settable_limits(&config.limits).len());
    }

    #[test]
    fn two_files_share_no_secret() {
        let (one, two) = (Secrets::draw().unwrap(), Secrets::draw().unwrap());
        assert_ne!(one.app_secret, two.app_secret);
        assert_ne!(one.viewer_token, two.viewer_token);
        assert_ne!(one.app_secret, one.viewer_token);
    }

    #[test]
    fn an_existing_file_or_dangling_link_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("there.toml");
        fs::write(&path, "mine").unwrap();
        let error = init(&path).unwrap_err().to_string();
        assert!(error.contains("there.toml exists and stays as it is"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");

        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        assert!(matches!(init(&link), Err(InitError::Exists(_))));

        let error = init(&dir.path().join("no/such/dir.toml")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write "), "{error}");
    }

    #[test]
    fn without_showing_the_secrets_no_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let args = InitArgs { output: dir.path().join("server.toml") };
        let closed = |_: &str| Err(io::ErrorKind::BrokenPipe.into());
        let error = run_printing(&args, closed).unwrap_err().to_string();
        assert!(error.contains("server.toml was removed again"), "{error}");
        assert!(!args.output.exists());
    }

    #[test]
    fn the_next_command_can_be_pasted() {
        let secrets = Secrets::draw().unwrap();
        let command = |path: &str| {
            let text = secrets.instructions(Path::new(path));
            text.lines()
                .find(|line| line.contains("agent-metrics serve"))
                .unwrap()
                .trim()
                .to_owned()
        };
        assert_eq!(command(DEFAULT_FILE), "agent-metrics serve");
        assert_eq!(command("/etc/a-b.toml"), "agent-metrics serve --config /etc/a-b.toml");
        assert_eq!(command("it's.toml"), r"agent-metrics serve --config 'it'\''s.toml'");
    }
}
