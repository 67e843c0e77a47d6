//! What a parting leaves behind: enough to see it again with one command, without the run before it.
//!
//! Not responsible for: what the report says (`finding`).

use crate::error::Error;
use crate::finding::Finding;
use crate::subject::Subject;
use gemel_log::{Header, LogWriter};
use gemel_replay::{EntrySource, Lookahead};
use std::fs;
use std::path::{Path, PathBuf};

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
/// Entries of the window beyond those at the step: the last tells the replay that the run goes on.
const MOST_ENTRIES: usize = 64;

/// Writes a finding's bundle into a directory, which is made if need be. `header` is the log's.
///
/// # Errors
/// The host's, or those of the log.
pub fn write_bundle(
    directory: &Path,
    finding: &Finding,
    subject: &dyn Subject,
    header: &Header,
) -> Result<(), Error> {
    let place = |name: &str| directory.join(name);
    let trouble = |path: PathBuf| move |source| Error::Bundle { path, source };
    fs::create_dir_all(directory).map_err(trouble(directory.to_owned()))?;
    let write = |name: &str, content: &[u8]| fs::write(place(name), content).map_err(trouble(place(name)));
    write(START, &finding.evidence.before)?;
    for (name, snapshot) in AFTER.iter().zip(&finding.evidence.after) {
        write(name, snapshot)?;
    }
    write(REPORT_TEXT, finding.report().as_bytes())?;
    write(REPORT_JSON, &serde_json::to_vec_pretty(finding).map_err(Error::subject)?)?;
    if let Ok(vector) = &finding.vector {
        let head =
            format!("# {}\n# CPU model {}; gemel-isa try {VECTOR}\n", finding.headline(), header.machine.cpu);
        write(VECTOR, (head + vector).as_bytes())?;
    }
    write(WINDOW, &window(finding, subject, header)?)
}

fn window(finding: &Finding, subject: &dyn Subject, header: &Header) -> Result<Vec<u8>, Error> {
    let mut source = subject.source().map_err(Error::subject)?;
    source.skip(finding.evidence.entries[0])?;
    let mut bytes = Vec::new();
    let header = Header { start: finding.at, ..header.clone() };
    let mut writer = LogWriter::new(&mut bytes, &header).map_err(Error::subject)?;
    let end = finding.after.iter().map(|at| at.position.count).max().unwrap_or(0);
    for _ in 0..MOST_ENTRIES {
        let Lookahead::Entry(entry) = source.peek()? else { break };
        writer.append(entry).map_err(Error::subject)?;
        if entry.at.position.count > end {
            break;
        }
        source.advance();
    }
    writer.flush().map_err(Error::subject)?;
    drop(writer);
    Ok(bytes)
}
