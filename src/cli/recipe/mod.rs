//! The files that `agent-metrics recipe` prints.

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Recipe {
    /// A heartbeat loop in POSIX sh, for machines with nothing but curl and /proc
    Sh,
    /// A systemd unit for `agent-metrics agent`, with few privileges
    SystemdAgent,
}

impl Recipe {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Sh => include_str!("heartbeat.sh"),
            Self::SystemdAgent => include_str!("agent-metrics-agent.service"),
        }
    }
}
