//! Programs and packages that tests need. If one is missing, the test is left out and says so; with
//! `AGENT_METRICS_TEST_TOOLS=required` (`make test`) it fails.

use std::io::Write as _;
use std::path::PathBuf;

const REQUIRED: &str = "AGENT_METRICS_TEST_TOOLS";

/// Searched in `PATH`, in this order, if the variable `CHROMIUM` is not set.
const CHROMIUM_NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Chromium,
    /// In `PATH`.
    Program(&'static str),
    /// From npm, in `target/test-tools`.
    Package(&'static str),
}

/// Returns from the test if one of these [`Tool`]s is missing.
macro_rules! needs {
    ($($tool:expr),+ $(,)?) => {{
        use $crate::support::tools::Tool::{self, *};
        const TOOLS: &[Tool] = &[$($tool),+];
        if !$crate::support::tools::are_there(TOOLS) {
            return;
        }
    }};
}
pub(crate) use needs;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Run,
    LeaveOut(String),
    Fail(String),
}

fn decide(missing: &[Tool], required: Option<&str>) -> Decision {
    if missing.is_empty() {
        return Decision::Run;
    }
    let names: Vec<&str> = missing
        .iter()
        .map(|tool| match tool {
            Tool::Chromium => "Chromium",
            Tool::Program(name) | Tool::Package(name) => name,
        })
        .collect();
    let why = format!("{} missing: `make test-tools` says how to get it", names.join(", "));
    if required == Some("required") { Decision::Fail(why) } else { Decision::LeaveOut(why) }
}

/// If some of `tools` are missing, says so, or panics if they are required.
pub(crate) fn are_there(tools: &[Tool]) -> bool {
    let missing: Vec<Tool> = tools.iter().copied().filter(|tool| tool.find().is_none()).collect();
    match decide(&missing, std::env::var(REQUIRED).ok().as_deref()) {
        Decision::Run => true,
        Decision::LeaveOut(why) => {
            left_out(&why);
            false
        }
        Decision::Fail(why) => panic!("{why}"),
    }
}

/// Says that the current test, or a part of it, is left out. Writes to standard error directly,
/// since the test harness hides what `eprintln!` prints in tests that pass.
pub(crate) fn left_out(why: &str) {
    let thread = std::thread::current();
    let line = format!("left out of {}: {why}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

impl Tool {
    pub(crate) fn find(self) -> Option<PathBuf> {
        match self {
            Self::Chromium => match std::env::var_os("CHROMIUM") {
                Some(path) => Some(path.into()),
                None => CHROMIUM_NAMES.into_iter().find_map(on_the_path),
            },
            Self::Program(name) => on_the_path(name),
            Self::Package(name) => {
                let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
                let path = root.join("target/test-tools/node_modules").join(name);
                path.is_dir().then_some(path)
            }
        }
    }

    /// For a test that [`needs`] it.
    pub(crate) fn path(self) -> PathBuf {
        self.find().unwrap_or_else(|| panic!("{self:?} is missing: run `make test-tools`"))
    }
}

fn on_the_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

#[test]
fn what_is_missing_is_left_out_or_fails_where_it_is_required() {
    let missing = [Tool::Chromium, Tool::Program("node"), Tool::Package("ws")];
    let why = "Chromium, node, ws missing: `make test-tools` says how to get it".to_owned();
    for given in [None, Some(""), Some("optional")] {
        assert_eq!(decide(&missing, given), Decision::LeaveOut(why.clone()));
        assert_eq!(decide(&[], given), Decision::Run);
    }
    assert_eq!(decide(&missing, Some("required")), Decision::Fail(why));
    assert_eq!(decide(&[], Some("required")), Decision::Run);
    assert_eq!(Tool::Program("no-such-program").find(), None);
    assert_eq!(Tool::Package("no-such-package").find(), None);
    assert!(Tool::Program("sh").find().is_some());
}
