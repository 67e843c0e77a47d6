//! A log that contradicts machines which do the same.
//!
//! Not responsible for: machines that part (`finding`).

use crate::bundle::{Evidence, Found};
use crate::error::Error;
use crate::lane::Lane;
use crate::place::{Back, Trail};
use gemel_machine::At;
use gemel_replay::Diverged;
use serde::Serialize;

/// What the log says otherwise, and the last place looked at before.
#[derive(Debug, Serialize)]
pub struct Contradiction {
    /// The difference.
    pub diverged: Diverged,
    /// The last place at which both machines were compared before.
    pub since: At,
    #[serde(skip)]
    evidence: Evidence,
}

impl Contradiction {
    pub(crate) fn of(diverged: Diverged, mut lane: Lane<'_>, trail: &Trail) -> Result<Self, Error> {
        let after = vec![lane.machine.snapshot()?];
        lane.go_to(trail, Back::Last)?;
        let evidence = Evidence {
            start: trail.last.at,
            end: diverged.at.position.count,
            before: lane.machine.snapshot()?,
            after,
            entries: trail.last.bookmarks[0].progress.entries(),
        };
        Ok(Self { diverged, since: trail.last.at, evidence })
    }
}

impl Found for Contradiction {
    fn headline(&self) -> String {
        format!("both machines do the same, and not what the log says: {}", self.diverged)
    }

    fn report(&self) -> String {
        self.diverged.report()
    }

    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}
