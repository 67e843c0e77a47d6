//! `gemel log show`: a log in words.
//!
//! Not responsible for: whether a machine does what it says (`replay`).

use crate::exit::Ending;
use anyhow::{Context, Result};
use gemel_log::{Header, Item, LogReader};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `gemel log show`.
#[derive(clap::Args)]
pub struct Args {
    /// The log
    #[arg(value_name = "LOG")]
    log: PathBuf,
    /// One JSON object a line: the header, each entry, the end
    #[arg(long)]
    json: bool,
    /// Prints the first N entries only
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    head: u64,
}

fn header_json(header: &Header) -> Value {
    let machine = &header.machine;
    let disk = |i: usize| {
        let spec = &machine.disks[i];
        json!({
            "sectors": spec.sectors,
            "read_only": spec.read_only,
            "digest": format!("{:032x}", spec.digest),
            "reads": format!("{:?}", header.reads[i]),
            "file": header.images.disks.get(i),
        })
    };
    json!({
        "creator": header.creator,
        "machine_id": format!("{:016x}", machine.id()),
        "board": machine.board,
        "memory_mib": machine.ram >> 20,
        "cpu": machine.cpu,
        "ns_per_count": machine.reckoning.time_base().map(|base| [base.num, base.den]),
        "rtc_base": machine.rtc_base,
        "seed": machine.seed,
        "clock": format!("{:?}", header.clock),
        "count_kind": format!("{:?}", machine.reckoning.count_kind()),
        "epoch": header.epoch,
        "kernel": { "digest": format!("{:032x}", machine.boot.kernel), "file": header.images.kernel },
        "initrd": { "digest": format!("{:032x}", machine.boot.initrd), "file": header.images.initrd },
        "append": machine.boot.append,
        "disks": (0..machine.disks.len()).map(disk).collect::<Vec<_>>(),
        "host_cpu": header.host_cpu,
        "engine": format!("{:?}", header.engine),
        "stays_clear": header.stays_clear,
        "passport": serde_json::from_str::<Value>(&header.passport).unwrap_or_default(),
    })
}

fn show(args: &Args, mut reader: LogReader<BufReader<File>>, out: &mut impl Write) -> Result<ExitCode> {
    let header = header_json(reader.header());
    match &header {
        _ if args.json => writeln!(out, "{}", json!({ "header": header }))?,
        Value::Object(fields) => {
            for (name, value) in fields {
                writeln!(out, "{name:<13} {value}")?;
            }
            writeln!(out)?;
        }
        _ => {}
    }
    for number in 0..args.head {
        match reader.next_item()? {
            Item::Entry(entry) if args.json => {
                let position = entry.at.position;
                let line = json!({
                    "entry": number,
                    "count": position.count,
                    "rip": format!("{:#x}", position.rip),
                    "rcx": format!("{:#x}", position.rcx),
                    "time_ns": entry.at.time.0,
                    "what": entry.body.to_string(),
                });
                writeln!(out, "{line}")?;
            }
            Item::Entry(entry) => writeln!(out, "{number:>6} {entry}")?,
            Item::Complete => break,
            Item::Cut { entries, offset, leftover } => {
                out.flush()?;
                eprintln!(
                    "gemel: the log is cut off after {entries} entries (byte {offset}); {leftover} bytes of another are left"
                );
                return Ok(ExitCode::from(Ending::LogCut.code()));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a log.
///
/// # Errors
/// A file that is no log, or where it is damaged.
pub fn run(args: Args) -> Result<ExitCode> {
    let path = args.log.display();
    let file = File::open(&args.log).with_context(|| format!("cannot open the log {path}"))?;
    let reader = LogReader::new(BufReader::new(file)).with_context(|| format!("{path} cannot be shown"))?;
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = show(&args, reader, &mut out);
    let shown = shown.and_then(|code| Ok(out.flush().map(|()| code)?));
    match shown {
        // Whoever reads has seen enough, as in `gemel log show x | head`.
        Err(e) if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        shown => shown,
    }
}
