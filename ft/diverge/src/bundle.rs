//! What a parting leaves behind: enough to see it again with one command, without the run before it.
//!
//! Not responsible for: what the report says (`finding`).

use crate::error::Error;
use crate::subject::Subject;
use gemel_log::{Header, LogWriter};
use gemel_machine::At;
use gemel_replay::{EntrySource, Lookahead};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

/// The machine before the step.
pub const START: &str = "start.snapshot";
/// A log that begins there: the first subject's entries around the step.
pub const WINDOW: &str = "window.gml";
/// The report for people.
pub const REPORT_TEXT: &str = "report.txt";
/// The report as JSON.
pub const REPORT_JSON: &str = "report.json";
/// The step as a test vector, where it is one.
pub const VECTOR: &str = "vector.txt";
/// Each machine after the step.
const AFTER: [&str; 2] = ["after-a.snapshot", "after-b.snapshot"];
/// Entries of the window at most.
const MOST_ENTRIES: usize = 1 << 16;

/// The states around a difference.
pub struct Evidence {
    /// Where the evidence begins.
    pub(crate) start: At,
    /// The last count of the difference.
    pub(crate) end: u64,
    /// The machine where it begins, and the machines after it.
    pub(crate) before: Vec<u8>,
    pub(crate) after: Vec<Vec<u8>>,
    /// Entries of the first subject's log before it.
    pub(crate) entries: u64,
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence").field("start", &self.start).finish_non_exhaustive()
    }
}

/// What a comparison found.
pub trait Found {
    /// One line.
    fn headline(&self) -> String;
    /// The whole report, for people.
    fn report(&self) -> String;
    /// The same as JSON.
    ///
    /// # Errors
    /// None that a report can cause.
    fn json(&self) -> serde_json::Result<serde_json::Value>;
    /// What the bundle takes.
    fn evidence(&self) -> &Evidence;
    /// The test vector, if there is one.
    fn vector(&self) -> Option<&str> {
        None
    }
}

/// Writes a bundle into a directory, which is made if need be. `header` is the log's of `subject`, the first one.
///
/// # Errors
/// The host's, or those of the log.
pub fn write_bundle(
    directory: &Path,
    found: &dyn Found,
    subject: &dyn Subject,
    header: &Header,
) -> Result<(), Error> {
    let place = |name: &str| directory.join(name);
    let trouble = |path: PathBuf| move |source| Error::Bundle { path, source };
    fs::create_dir_all(directory).map_err(trouble(directory.to_owned()))?;
    let write = |name: &str, content: &[u8]| fs::write(place(name), content).map_err(trouble(place(name)));
    let evidence = found.evidence();
    write(START, &evidence.before)?;
    for (name, snapshot) in AFTER.iter().zip(&evidence.after) {
        write(name, snapshot)?;
    }
    write(REPORT_TEXT, found.report().as_bytes())?;
    let json = found.json().and_then(|json| serde_json::to_vec_pretty(&json));
    write(REPORT_JSON, &json.map_err(Error::subject)?)?;
    if let Some(vector) = found.vector() {
        let head =
            format!("# {}\n# CPU model {}; gemel-isa try {VECTOR}\n", found.headline(), header.machine.cpu);
        write(VECTOR, (head + vector).as_bytes())?;
    }
    write(WINDOW, &window(evidence, subject, header)?)
}

fn window(evidence: &Evidence, subject: &dyn Subject, header: &Header) -> Result<Vec<u8>, Error> {
    let mut source = subject.source().map_err(Error::subject)?;
    source.skip(evidence.entries)?;
    let mut bytes = Vec::new();
    let header = Header { start: evidence.start, ..header.clone() };
    let mut writer = LogWriter::new(&mut bytes, &header).map_err(Error::subject)?;
    for _ in 0..MOST_ENTRIES {
        let Lookahead::Entry(entry) = source.peek()? else { break };
        writer.append(entry).map_err(Error::subject)?;
        if entry.at.position.count > evidence.end {
            break;
        }
        source.advance();
    }
    writer.flush().map_err(Error::subject)?;
    drop(writer);
    Ok(bytes)
}
