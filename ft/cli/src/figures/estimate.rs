//! `gemel estimate`: how much log a guest makes, by rule of thumb and as measured.
//!
//! Not responsible for: the log's bytes (`gemel-log`).
//!
//! The rule is VMware's for FT logging: ((disk reads in MB/s x 8) + received network traffic in Mbit/s) x 1.2.

use super::sides::Sides;
use super::words::{bytes, classes};
use crate::trust::TrustOptions;
use anyhow::{Context, Result, ensure};
use gemel_log::{Body, ByteCounts, Encoder, Entry, Item, LogReader, data_check};
use gemel_machine::Input;
use serde_json::{Value, json};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Options of `gemel estimate`.
#[derive(clap::Args)]
pub struct Args {
    /// A log, of gemel record or of a side of a pair (--log); or the console address or control socket of a side that runs
    #[arg(value_name = "RUN.gml|ADDR|SOCKET")]
    subject: PathBuf,
    /// How long to watch a side that runs, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(50..))]
    interval: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    trust: TrustOptions,
}

/// What a log says about itself.
#[derive(Default)]
struct Measured {
    /// Guest time from its first position to its last, or for how long a side was watched (s).
    seconds: f64,
    /// Data that the guest read from disks, in the log or not.
    disk_read: u64,
    /// Frames that the guest received.
    received: u64,
    by_class: ByteCounts,
    /// The bytes of its disk class if all read data were in it, and if none were.
    disk_carried: u64,
    disk_from_image: u64,
}

impl Measured {
    fn of(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open the log {}", path.display()))?;
        let mut reader = LogReader::new(BufReader::new(file))
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let mut measured = Self::default();
        let (header, crc) = reader.header().encode()?;
        measured.by_class.other += header.len() as u64;
        // Entries are as long as the writer made them when they are encoded in the same order; those of the other policy are
        // encoded beside them.
        let encoder = || Encoder::new(reader.header(), crc);
        let (mut as_it_is, mut without_data) = (encoder(), encoder());
        let (mut first, mut last) = (None, 0);
        while let Item::Entry(entry) = reader.next_item()? {
            first.get_or_insert(entry.at.time.0);
            last = entry.behind().time.0;
            let mut buffer = Vec::new();
            let class = as_it_is.encode(&entry, &mut buffer)?;
            measured.by_class.add(class, buffer.len() as u64);
            let length = buffer.len() as u64;
            buffer.clear();
            without_data.encode(&without_read_data(&entry), &mut buffer)?;
            match &entry.body {
                Body::Input { input: Input::DiskDone { data, .. }, .. } => {
                    measured.disk_read += data.len() as u64;
                    measured.disk_carried += length;
                    measured.disk_from_image += buffer.len() as u64;
                }
                Body::ReRead { length: data, .. } => {
                    measured.disk_read += u64::from(*data);
                    measured.disk_carried += length + u64::from(*data);
                    measured.disk_from_image += length;
                }
                Body::Input { input: Input::Frame { bytes, .. }, .. } => {
                    measured.received += bytes.len() as u64;
                }
                _ => {}
            }
        }
        measured.seconds = (last.saturating_sub(first.unwrap_or(0))) as f64 / 1e9;
        Ok(measured)
    }

    /// What a side's log grew by while it was watched. Its entries are not looked into: read data and frames are taken for all of
    /// their classes, which they nearly are, and of data that is not in the log nothing is known.
    fn watched(side: &str, interval: Duration, trust: &TrustOptions) -> Result<Self> {
        let sides = Sides::new(&[side.to_owned()], trust)?;
        let look = || {
            let told = sides.ask(Duration::from_secs(2)).swap_remove(0);
            told.with_context(|| format!("{side} is no log, and no side that can be reached"))
        };
        let then = look()?;
        std::thread::sleep(interval);
        let now = look()?;
        ensure!(then.figures.member == now.figures.member, "another side took {side} over; ask again");
        let by_class = now.log.since(&then.log);
        Ok(Self {
            seconds: (now.now - then.now) as f64 / 1e9,
            disk_read: by_class.disk,
            received: by_class.net,
            disk_carried: by_class.disk,
            by_class,
            ..Self::default()
        })
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }

    fn mbit(&self, count: u64) -> f64 {
        self.per_second(count) * 8.0 / 1e6
    }

    /// VMware's rule, in Mbit/s.
    fn rule(&self) -> f64 {
        (self.per_second(self.disk_read) / 1e6 * 8.0 + self.mbit(self.received)) * 1.2
    }

    /// What the log would be under a policy, in Mbit/s.
    fn with_disk(&self, disk: u64) -> f64 {
        self.mbit(self.by_class.total() - self.by_class.disk + disk)
    }

    fn json(&self) -> Value {
        let by_class: serde_json::Map<String, Value> =
            classes(&self.by_class).iter().map(|(name, count)| ((*name).into(), (*count).into())).collect();
        json!({
            "seconds": self.seconds,
            "disk_read_bytes": self.disk_read,
            "received_bytes": self.received,
            "rule_mbit_per_s": self.rule(),
            "log_bytes": by_class,
            "log_mbit_per_s": self.mbit(self.by_class.total()),
            "carried_mbit_per_s": self.with_disk(self.disk_carried),
            "from_image_mbit_per_s": self.with_disk(self.disk_from_image),
        })
    }
}

/// The entry that stands for a read whose data is not in the log.
fn without_read_data(entry: &Entry) -> Entry {
    match &entry.body {
        Body::Input { input: Input::DiskDone { disk, tag, status, data }, .. } if !data.is_empty() => {
            let (length, check) = (data.len() as u32, data_check(data));
            Entry {
                at: entry.at,
                body: Body::ReRead { disk: *disk, tag: *tag, status: *status, length, check },
            }
        }
        _ => entry.clone(),
    }
}

/// Reckons and prints.
///
/// # Errors
/// A file that is no log, or where it is damaged.
pub fn run(args: Args) -> Result<ExitCode> {
    let measured = match args.subject.is_file() {
        true => Measured::of(&args.subject)?,
        false => {
            let side = args.subject.to_string_lossy();
            Measured::watched(&side, Duration::from_millis(args.interval), &args.trust)?
        }
    };
    if args.json {
        println!("{}", measured.json());
        return Ok(ExitCode::SUCCESS);
    }
    let total = measured.by_class.total();
    println!("time                 {:.3} s", measured.seconds);
    println!("read from disks      {}", bytes(measured.disk_read as f64));
    println!("received             {}", bytes(measured.received as f64));
    println!(
        "rule of thumb        {:.4} Mbit/s   ((read MB/s x 8) + received Mbit/s) x 1.2",
        measured.rule()
    );
    println!("measured             {:.4} Mbit/s   {}", measured.mbit(total), bytes(total as f64));
    for (name, count) in classes(&measured.by_class) {
        if count > 0 {
            println!("  {name:<8}           {:.4} Mbit/s   {}", measured.mbit(count), bytes(count as f64));
        }
    }
    let carried = measured.with_disk(measured.disk_carried);
    println!("reads in the log     {carried:.4} Mbit/s");
    let from_image = measured.with_disk(measured.disk_from_image);
    let saved = if carried > 0.0 { (1.0 - from_image / carried) * 100.0 } else { 0.0 };
    println!("reads from the image {from_image:.4} Mbit/s   saves {saved:.1} %");
    Ok(ExitCode::SUCCESS)
}
