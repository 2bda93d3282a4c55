//! The kinds of faults.

use std::ops::Range;

/// What can happen to a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL to an instance.
    ProcessKilled,
    /// SIGTERM to an instance.
    ProcessTerminated,
    /// SIGSTOP to an instance for longer than its session lasts, then SIGCONT.
    ProcessFrozen,
    /// SIGKILL to an instance, and its disk is lost.
    StateDeleted,
    /// The disk of an instance is full.
    DiskFull,
    /// SIGKILL to a broker.
    BrokerKilled,
    /// SIGSTOP to a broker, then SIGCONT.
    BrokerFrozen,
    /// Every broker is restarted in good order, one after the other.
    BrokersRolled,
    /// Connections of an instance stay open, and nothing passes.
    TrafficStalled,
    /// An instance can reach no broker.
    TrafficCut,
    /// Every connection of an instance is reset.
    ConnectionsReset,
    /// A commit reaches the broker, and its reply is lost with the connection.
    CommitReplyLost,
    /// A commit is stuck on its way while its client sends it again on another connection, and arrives later.
    CommitDelayed,
    /// A hundred thousand content rows are updated at once.
    ContentFlood,
}

/// What a fault is done to. In one round each of these is touched by one fault at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Process,
    Broker,
    Network,
    Input,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::ProcessKilled,
        Self::ProcessTerminated,
        Self::ProcessFrozen,
        Self::StateDeleted,
        Self::DiskFull,
        Self::BrokerKilled,
        Self::BrokerFrozen,
        Self::BrokersRolled,
        Self::TrafficStalled,
        Self::TrafficCut,
        Self::ConnectionsReset,
        Self::CommitReplyLost,
        Self::CommitDelayed,
        Self::ContentFlood,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProcessKilled => "instance killed (SIGKILL)",
            Self::ProcessTerminated => "instance stopped (SIGTERM)",
            Self::ProcessFrozen => "instance frozen past its session",
            Self::StateDeleted => "instance killed, state deleted",
            Self::DiskFull => "disk of an instance full",
            Self::BrokerKilled => "broker killed (SIGKILL)",
            Self::BrokerFrozen => "broker frozen",
            Self::BrokersRolled => "brokers restarted one by one",
            Self::TrafficStalled => "traffic of an instance stalled",
            Self::TrafficCut => "instance cut off from the brokers",
            Self::ConnectionsReset => "connections reset",
            Self::CommitReplyLost => "reply to a commit lost",
            Self::CommitDelayed => "commit stuck on its way",
            Self::ContentFlood => "content flood",
        }
    }

    pub(super) fn victim(self) -> Victim {
        match self {
            Self::ProcessKilled
            | Self::ProcessTerminated
            | Self::ProcessFrozen
            | Self::StateDeleted
            | Self::DiskFull => Victim::Process,
            Self::BrokerKilled | Self::BrokerFrozen | Self::BrokersRolled => Victim::Broker,
            Self::TrafficStalled
            | Self::TrafficCut
            | Self::ConnectionsReset
            | Self::CommitReplyLost
            | Self::CommitDelayed => Victim::Network,
            Self::ContentFlood => Victim::Input,
        }
    }

    /// How many of a full deck are of this kind: quick ones come more often.
    pub(super) fn share(self) -> usize {
        match self {
            Self::BrokersRolled | Self::DiskFull | Self::ContentFlood => 1,
            Self::ProcessFrozen | Self::BrokerKilled | Self::BrokerFrozen | Self::TrafficCut => 2,
            Self::TrafficStalled | Self::ProcessTerminated | Self::StateDeleted => 3,
            Self::ProcessKilled | Self::ConnectionsReset => 4,
            Self::CommitReplyLost | Self::CommitDelayed => 5,
        }
    }

    /// How long it lasts, in milliseconds; for what is killed, how long it stays away.
    pub(super) fn lasts_ms(self) -> Range<u64> {
        match self {
            // The session of a member lasts 6 s.
            Self::ProcessFrozen => 6_500..9_500,
            Self::BrokerFrozen => 500..8_000,
            Self::TrafficStalled => 300..8_000,
            Self::TrafficCut => 300..5_000,
            Self::ProcessKilled | Self::ProcessTerminated | Self::StateDeleted => 0..1_500,
            Self::BrokerKilled => 0..3_000,
            Self::CommitDelayed => 100..2_500,
            // Connections are reset again and again for so long.
            Self::ConnectionsReset => 1..1_000,
            Self::DiskFull | Self::BrokersRolled | Self::CommitReplyLost | Self::ContentFlood => {
                0..1
            }
        }
    }
}
