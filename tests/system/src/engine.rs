//! What executes a guest, as `--accel` names it, and the options with which a kernel of `roms/` is the same machine on each: one that
//! counts exits and has no TSC.
//!
//! Not responsible for what a host's KVM can do (`gemel check`).

use std::fmt;
use std::fs::OpenOptions;

/// A model without the TSC: no kernel of `roms/` but `leaks` could meet it then.
pub const WITHOUT_TSC: &str = "x86-64-v2,-tsc";
/// What no kernel does that is recorded on KVM (docs/check.md).
pub const UNUSED: &str = "tsc,cpuid,rdrand,rdseed,rdpmc,tzcnt,lzcnt,syscall,int";

/// An engine
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `--accel interp`
    Interp,
    /// `--accel kvm`
    Kvm,
}

impl Engine {
    /// All of them
    pub const ALL: [Self; 2] = [Self::Interp, Self::Kvm];
    /// Who leads and who follows, in every way
    pub const PAIRS: [[Self; 2]; 4] = [
        [Self::Kvm, Self::Kvm],
        [Self::Kvm, Self::Interp],
        [Self::Interp, Self::Kvm],
        [Self::Interp, Self::Interp],
    ];

    /// Why it cannot be had here, if it cannot.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        if self == Self::Interp {
            return None;
        }
        let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        opened.err().map(|error| format!("/dev/kvm: {error}"))
    }

    /// Those that can be had here.
    pub fn here() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|engine| engine.missing().is_none())
    }

    /// As `--accel` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interp => "interp",
            Self::Kvm => "kvm",
        }
    }

    /// The options of whoever makes the machine and records it.
    #[must_use]
    pub fn leads(self) -> Vec<&'static str> {
        let counted: &[&str] = match self {
            Self::Interp => &["--reckoning", "exits"],
            Self::Kvm => &["--stays-clear", UNUSED],
        };
        [&self.follows(), counted].concat()
    }

    /// The options of whoever runs the same machine by another's log.
    #[must_use]
    pub fn follows(self) -> Vec<&'static str> {
        vec!["--accel", self.name(), "--cpu", WITHOUT_TSC]
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
