//! A finding in words.
//!
//! Not responsible for: finding it (`finding`).

use crate::bundle::{Evidence, Found};
use crate::entries::EntryDifference;
use crate::finding::{
    ByteDifference, DeviceDifference, ElementDifference, Finding, LastChange, MOST_WRITERS, Work,
};
use std::fmt::Write;

impl Found for Finding {
    fn headline(&self) -> String {
        let what = self.instruction.as_ref().map_or("where nothing can be fetched", |i| &i.text);
        let first = self.cpu.first().map(|d| d.element.clone());
        let first = first
            .or_else(|| self.entry.as_ref().map(|e| format!("log entry {}", e.number)))
            .or_else(|| self.devices.first().map(|d| format!("device {}", d.device)))
            .or_else(|| self.memory.first().map(|d| format!("memory at {:#x}", d.address)))
            .or_else(|| self.outputs.map(|_| "what they put out".into()))
            .unwrap_or_else(|| "how the run goes on".into());
        format!(
            "{} and {} part at {}: {what}: {first} differs",
            self.names[0], self.names[1], self.at.position
        )
    }

    fn report(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_report(&mut out);
        out
    }

    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn vector(&self) -> Option<&str> {
        self.vector.as_deref().ok()
    }
}

impl Finding {
    fn write_report(&self, out: &mut String) -> std::fmt::Result {
        let [a, b] = &self.names;
        writeln!(out, "{a} and {b} are the same up to\n    {} {}", self.at.position, self.at.time)?;
        match &self.instruction {
            Some(i) => writeln!(out, "and differ after\n    {:#x}: {}  {}", i.linear, i.bytes, i.text)?,
            None => writeln!(out, "and differ after one step from there; nothing can be fetched there")?,
        }
        for (name, (after, ended)) in self.names.iter().zip(self.after.iter().zip(&self.ended)) {
            let ended = ended.as_ref().map_or(String::new(), |e| format!("\n        {e}"));
            writeln!(out, "    {name} is then at {} {}{ended}", after.position, after.time)?;
        }
        for (name, entry) in self.names.iter().zip(&self.last_entry) {
            let entry = entry.as_deref().unwrap_or("none");
            writeln!(out, "    last log entry before, {name}: {entry}")?;
        }
        if let Some(EntryDifference { number, entries: [x, y], .. }) = &self.entry {
            writeln!(out, "    the logs differ in entry {number}\n        {a}: {x}\n        {b}: {y}")?;
        }
        if let Some([x, y]) = &self.outputs {
            let (of_x, of_y) = (format_args!("{:016x}", x.hash), format_args!("{:016x}", y.hash));
            writeln!(out, "    {a} put out {} so far, hash {of_x}; {b} {}, hash {of_y}", x.count, y.count)?;
        }
        if !self.cpu.is_empty() {
            writeln!(out, "\nCPU                  before              {a:<20}{b}")?;
        }
        for ElementDifference { element, before, values: [x, y] } in &self.cpu {
            writeln!(out, "    {element:<17}{before:<20}{x:<20}{y}")?;
        }
        for DeviceDifference { device, offset, values: [x, y] } in &self.devices {
            writeln!(
                out,
                "\ndevice {device}, from byte {offset} of its state\n    {a:<12}{x}\n    {b:<12}{y}"
            )?;
        }
        if self.memory_bytes > 0 {
            writeln!(out, "\nmemory: {} bytes differ; before, {a}, {b}", self.memory_bytes)?;
        }
        for (n, ByteDifference { address, before, values: [x, y], last_change }) in
            self.memory.iter().enumerate()
        {
            writeln!(out, "    {address:#012x}  {before:02x}  {x:02x}  {y:02x}")?;
            match last_change {
                Some(LastChange { at, instruction }) => {
                    let text = instruction.as_ref().map_or("?", |i| &i.text);
                    writeln!(out, "        last changed before at {}: {text}", at.position)?;
                }
                None if n < MOST_WRITERS => {
                    writeln!(out, "        not seen to change before, since {}", self.since.position)?;
                }
                None => {}
            }
        }
        match &self.vector {
            Ok(_) => writeln!(out, "\nvector.txt asks silicon who is right: gemel-isa try vector.txt")?,
            Err(why) => writeln!(out, "\nno test vector: {why}")?,
        }
        if let Some(undefined) = &self.undefined {
            writeln!(
                out,
                "\nthe CPUs are unlike, and this differs only in what the manuals leave undefined:\n    {undefined}"
            )?;
        }
        let Work { distance, verdict, history } = self.work;
        writeln!(
            out,
            "found {distance} counts into the interval; {verdict} were executed to name the step, {history} for what changed last"
        )
    }
}
