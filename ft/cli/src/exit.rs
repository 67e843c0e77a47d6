//! How a run ended, and the exit codes that tell it (docs/exit-codes.md).
//!
//! Not responsible for: ending anything.

use gemel_host::{HostError, QuitReason};
use gemel_log::LogError;
use gemel_machine::{Pause, PowerEvent, RunError, Stop};
use std::fmt;

/// Input that no run can be made of: options, files, addresses, peers.
pub const BAD_INPUT: u8 = 2;

/// The table that --help shows.
pub const TABLE: &str = "\
Exit codes:
  0      the guest powered off, the log was replayed to its end, or the run ended as asked
  2      bad input: options, a missing file, not a kernel, a damaged log or another machine's, a port in
         use, no peer
  3      the guest reset itself or triple-faulted, and --no-reboot is given
  4      the machine did not do what the log says
  5      the guest halted for good
  6      trouble with the host during the run
  7      the other side of the pair has the guest: this one stopped
  8      the log is cut off: replayed up to its last whole entry
  10     check --against: the two hosts fit on no engine
  12     verify-outputs: an output left too early, or was lost, or is another one
  2v+1   the guest wrote v to the debug-exit port
  128+n  ended by signal n";

/// How a run ended.
#[derive(Debug)]
pub enum Ending {
    /// The guest ended it.
    Guest(Pause),
    /// Somebody outside ended it.
    Quit(QuitReason),
    /// `--stop-after` was reached.
    Limit,
    /// The guest sleeps and nothing can wake it.
    Stuck,
    /// The log was replayed to its end.
    LogEnd,
    /// The log is cut off.
    LogCut,
    /// The log is damaged; where.
    LogDamaged(String),
    /// The machine did not do what the log says; the report.
    Diverged(String),
    /// Trouble with the host.
    Host(String),
    /// The pair's other side has the next epoch.
    Lost,
    /// The guest ended at the pair's other side.
    PeerEnded,
    /// The host was checked.
    Checked,
    /// It was checked against another, and the two can do nothing together.
    Unlike,
    /// The ledgers prove that every output left as it should.
    Proved,
    /// Nothing in them speaks against it, and some of it rests on one side's word.
    Unproved,
    /// They prove that it is not so.
    Refuted(String),
}

impl Ending {
    /// The ending that a run's outcome means. `quit` is who ended it, if somebody did.
    pub fn of(outcome: &Result<Pause, RunError>, quit: Option<QuitReason>) -> Self {
        match outcome {
            Ok(pause) => Self::Guest(*pause),
            Err(RunError::World(Stop::Quit)) => quit.map_or(Self::Limit, Self::Quit),
            Err(RunError::World(Stop::EndOfLog)) => Self::LogEnd,
            Err(RunError::World(Stop::Diverged(e))) => Self::Diverged(e.to_string()),
            Err(RunError::World(Stop::Host(e))) => match (e.downcast_ref(), e.downcast_ref()) {
                (Some(HostError::Stuck), _) => Self::Stuck,
                (_, Some(LogError::Damaged { .. })) => Self::LogDamaged(e.to_string()),
                _ => Self::Host(e.to_string()),
            },
            Err(RunError::Engine(e)) => Self::Host(e.to_string()),
        }
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Guest(Pause::Power(PowerEvent::Off))
            | Self::Limit
            | Self::LogEnd
            | Self::PeerEnded
            | Self::Checked
            | Self::Proved => 0,
            Self::Guest(Pause::Power(PowerEvent::Reset) | Pause::TripleFault) => 3,
            // As QEMU's isa-debug-exit.
            Self::Guest(Pause::Power(PowerEvent::DebugExit(value))) => (value << 1 | 1) as u8,
            Self::Guest(Pause::Halted) | Self::Stuck => 5,
            Self::Quit(QuitReason::Signal(n)) => 128u8.saturating_add(*n as u8),
            Self::Quit(_) => 0,
            Self::Diverged(_) => 4,
            Self::Host(_) => 6,
            Self::Lost => 7,
            Self::LogDamaged(_) => BAD_INPUT,
            Self::LogCut | Self::Unproved => 8,
            Self::Unlike => 10,
            Self::Refuted(_) => 12,
        }
    }

    /// The ending's name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Guest(Pause::Power(PowerEvent::Off)) => "power-off",
            Self::Guest(Pause::Power(PowerEvent::Reset)) => "reset",
            Self::Guest(Pause::Power(PowerEvent::DebugExit(_))) => "debug-exit",
            Self::Guest(Pause::TripleFault) => "triple-fault",
            Self::Guest(Pause::Halted) => "halted",
            Self::Quit(QuitReason::Signal(_)) => "signal",
            Self::Quit(_) => "quit",
            Self::Limit => "stop-after",
            Self::Stuck => "stuck",
            Self::LogEnd => "log-end",
            Self::LogCut => "log-cut",
            Self::LogDamaged(_) => "log-damaged",
            Self::Diverged(_) => "diverged",
            Self::Host(_) => "host-error",
            Self::Lost => "lost",
            Self::PeerEnded => "peer-ended",
            Self::Checked => "checked",
            Self::Unlike => "unlike",
            Self::Proved => "proved",
            Self::Unproved => "unproved",
            Self::Refuted(_) => "refuted",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(Pause::Power(PowerEvent::Off)) => f.write_str("the guest powered off"),
            Self::Guest(Pause::Power(PowerEvent::Reset)) => f.write_str("the guest reset itself"),
            Self::Guest(Pause::Power(PowerEvent::DebugExit(value))) => {
                write!(f, "the guest wrote {value:#x} to the debug-exit port")
            }
            Self::Guest(Pause::TripleFault) => f.write_str("the guest triple-faulted"),
            Self::Guest(Pause::Halted) => f.write_str("the guest halted for good, with interrupts off"),
            Self::Quit(QuitReason::Terminal) => f.write_str("left by Ctrl-A x"),
            Self::Quit(QuitReason::Control) => f.write_str("ended by the control socket"),
            Self::Quit(QuitReason::Signal(n)) => write!(f, "ended by signal {n}"),
            Self::Limit => f.write_str("stopped where --stop-after says"),
            Self::Stuck => write!(f, "{}", HostError::Stuck),
            Self::LogEnd => f.write_str("replayed to the end of the log"),
            Self::LogCut => f.write_str("the log is cut off; replayed up to its last whole entry"),
            Self::Lost => f.write_str("the other side of the pair has the guest; this one stopped"),
            Self::PeerEnded => f.write_str("the guest ended at the primary"),
            Self::Checked => f.write_str("the host was checked"),
            Self::Unlike => f.write_str("the two hosts cannot be a pair on any engine"),
            Self::Proved => f.write_str("every output left after its acknowledgement, and none is lost"),
            Self::Unproved => f.write_str("nothing is wrong, but some of it rests on one side's word"),
            Self::Refuted(report)
            | Self::LogDamaged(report)
            | Self::Diverged(report)
            | Self::Host(report) => f.write_str(report),
        }
    }
}

/// An error and its causes in one line, without saying anything twice.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
    }
    line.replace('\n', " ")
}

/// The option parser's complaint, without its pages of advice.
pub fn usage_line(complaint: &str) -> String {
    let complaint = complaint.strip_prefix("error: ").unwrap_or(complaint);
    let first = complaint.split("\n\n").next().unwrap_or(complaint);
    format!("{} (see --help)", first.split_whitespace().collect::<Vec<_>>().join(" "))
}
