//! What `agent-metrics recipe` prints: texts to take along to a machine. Owns the texts' files;
//! runs nothing.

/// A text to take along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Recipe {
    /// A heartbeat loop in POSIX sh, for machines with curl and /proc and nothing else
    Sh,
    /// A systemd unit for `agent-metrics agent`, with few rights
    SystemdAgent,
}

impl Recipe {
    /// The text, as it goes into a file.
    #[must_use]
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Sh => include_str!("heartbeat.sh"),
            Self::SystemdAgent => include_str!("agent-metrics-agent.service"),
        }
    }
}
