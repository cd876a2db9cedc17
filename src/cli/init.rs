//! `agent-metrics init`: writes a configuration file with new random secrets, of which it holds only
//! digests, and shows the secrets once.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Failure;
use crate::server::auth::SecretDigest;
use crate::server::config::{DEFAULT_FILE, DEFAULT_PORT, settable_limits};
use crate::server::limits::Limits;

/// Random bytes of a secret: 256 bits, so that a fast hash of it cannot be reversed.
const SECRET_BYTES: usize = 32;

/// Random bytes of an app key, which is not secret; enough that two files differ.
const KEY_BYTES: usize = 4;

/// The file without its secrets and limits.
const TEMPLATE: &str = include_str!("init.toml");

/// What is printed, without the secrets and the file's name.
const INSTRUCTIONS: &str = include_str!("init.txt");

/// Writes the file, then prints secrets and next steps.
pub(super) fn run(path: &Path, print: impl FnOnce(&str) -> io::Result<()>) -> Result<(), Failure> {
    let shown = path.display();
    let secrets = Secrets::draw()
        .map_err(|error| format!("cannot get random bytes from the system: {error}"))?;
    write_new(path, &secrets.file()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!(
            "{shown} exists and stays as it is; name another file with --output, or move it away"
        ),
        _ => format!("cannot write {shown}: {error}"),
    })?;
    print(&secrets.instructions(path)).map_err(|error| {
        // Nobody would know the file's secrets. If it cannot be removed, it does no harm.
        let _ = fs::remove_file(path);
        format!(
            "cannot show the secrets on standard output ({error}), so {shown} was removed again"
        )
    })?;
    Ok(())
}

/// Writes a file that only its owner can read. `create_new` also refuses a dangling link.
fn write_new(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(path);
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
        let mut text = TEMPLATE
            .replace("<port>", &DEFAULT_PORT.to_string())
            .replace("<app_key>", &self.app_key)
            .replace("<app_secret_sha256>", &SecretDigest::of(&self.app_secret).to_hex())
            .replace("<token_sha256>", &SecretDigest::of(&self.viewer_token).to_hex());
        for (name, default) in settable_limits(&Limits::default()) {
            let is_number = default.bytes().all(|byte| byte.is_ascii_digit());
            let quote = if is_number { "" } else { "\"" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# {name} = {quote}{default}{quote}");
        }
        text
    }

    /// The secrets and next steps, which are shown once.
    fn instructions(&self, path: &Path) -> String {
        let file = path.to_string_lossy();
        let config = match &*file {
            DEFAULT_FILE => String::new(),
            file => format!(" --config {}", shell_word(file)),
        };
        // The file's name last: it may contain anything.
        INSTRUCTIONS
            .replace("<port>", &DEFAULT_PORT.to_string())
            .replace("<app_key>", &self.app_key)
            .replace("<app_secret>", &self.app_secret)
            .replace("<viewer_token>", &self.viewer_token)
            .replace("<config>", &config)
            .replace("<file>", &file)
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

    fn init(path: &Path) -> Result<String, Failure> {
        let mut printed = String::new();
        run(path, |text| {
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
        let error = init(&link).unwrap_err().to_string();
        assert!(error.contains("link.toml exists and stays as it is"), "{error}");

        let error = init(&dir.path().join("no/such/dir.toml")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write "), "{error}");
    }

    #[test]
    fn without_showing_the_secrets_no_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.toml");
        let closed = |_: &str| Err(io::ErrorKind::BrokenPipe.into());
        let error = run(&path, closed).unwrap_err().to_string();
        assert!(error.contains("server.toml was removed again"), "{error}");
        assert!(!path.exists());
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
