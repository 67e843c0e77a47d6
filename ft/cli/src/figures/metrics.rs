//! `--metrics ADDR`: a side's figures for Prometheus, in its text format 0.0.4.
//!
//! Not responsible for: who may read them. The endpoint is plain HTTP and gives nothing but figures: keep it on an address that only
//! the monitoring reaches.

use super::words::{classes, is_protected, phase};
use anyhow::{Context, Result};
use gemel_pair::protocol::LATENCY_BOUNDS;
use gemel_pair::shell::{Report, ReportFn};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// A request is a line and a few headers.
const REQUEST: usize = 4 << 10;
/// Whoever takes longer to say what it wants, or to take it, has to come again: others wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves the figures from now on; they are there once the side tells them.
///
/// # Errors
/// The address cannot be used.
pub fn serve(address: &str, report: Arc<OnceLock<ReportFn>>) -> Result<()> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot serve metrics on {address}: HOST:PORT that is free is wanted"))?;
    if let Ok(address) = listener.local_addr() {
        eprintln!("gemel: metrics on http://{address}/metrics");
    }
    thread::Builder::new().name("metrics".into()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                // One at a time: each costs this thread and no other.
                Ok(stream) => drop(answer(&stream, &report)),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    })?;
    Ok(())
}

fn answer(mut stream: &TcpStream, report: &OnceLock<ReportFn>) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let (status, body) = match request(stream)? {
        Some(path) if path == "/metrics" => match report.get() {
            Some(report) => ("200 OK", exposition(&report())),
            None => ("503 Service Unavailable", "the side has not started\n".into()),
        },
        Some(_) => ("404 Not Found", "figures are at /metrics\n".into()),
        None => ("400 Bad Request", "GET /metrics is all there is\n".into()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The path that a GET asks for.
fn request(mut stream: &TcpStream) -> io::Result<Option<String>> {
    let deadline = Instant::now() + PATIENCE;
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() > REQUEST {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    Ok((words.next() == Some("GET")).then(|| words.next().map(str::to_owned)).flatten())
}

/// The figures as Prometheus reads them.
fn exposition(report: &Report) -> String {
    let figures = &report.figures;
    let seconds = |ns: u64| ns as f64 / 1e9;
    let mut text = String::new();
    for (name, kind, help, value) in [
        ("epoch", "gauge", "The epoch in which this side lives.", figures.epoch as f64),
        ("members", "gauge", "Sides in sync, the leader included.", figures.members.len() as f64),
        ("protected", "gauge", "1 while another side can go on.", u8::from(is_protected(report)).into()),
        ("position_total", "counter", "Where the machine is, as the log counts.", figures.position as f64),
        ("guest_seconds_total", "counter", "Guest time since power-on.", seconds(figures.guest_time)),
        ("lag_seconds", "gauge", "Guest time of what the secondary has not executed.", seconds(figures.lag)),
        ("outputs_total", "counter", "Outputs of the machine.", figures.outputs as f64),
        ("outputs_held", "gauge", "Outputs that wait for an acknowledgement.", figures.held as f64),
        (
            "outputs_delivered_total",
            "counter",
            "Outputs that the console has shown.",
            figures.delivered as f64,
        ),
        ("console_input_bytes_total", "counter", "Console input that the guest took.", figures.inputs as f64),
        (
            "marks_in_flight",
            "gauge",
            "Marks that wait for an acknowledgement.",
            figures.marks_in_flight as f64,
        ),
        (
            "unprotected_seconds_total",
            "counter",
            "Host time without another side.",
            seconds(figures.unprotected),
        ),
        (
            "clones_total",
            "counter",
            "Standbys that got the machine from this side.",
            report.clones.made as f64,
        ),
        (
            "clone_pause_seconds",
            "gauge",
            "How long the last one stopped the guest.",
            seconds(report.clones.pause),
        ),
        ("clone_bytes", "gauge", "Bytes that the last one took.", report.clones.bytes as f64),
    ] {
        metric(&mut text, name, kind, help);
        let _ = writeln!(text, "gemel_{name} {value}");
    }
    metric(&mut text, "phase", "gauge", "What this side does; 1 for the phase that it is in.");
    let _ = writeln!(text, "gemel_phase{{phase=\"{}\"}} 1", phase(&figures.phase));
    metric(&mut text, "log_bytes_total", "counter", "Bytes of the log, by class.");
    for (class, count) in classes(&report.log) {
        let _ = writeln!(text, "gemel_log_bytes_total{{class=\"{class}\"}} {count}");
    }
    metric(&mut text, "output_latency_seconds", "histogram", "From leaving the machine to leaving the side.");
    let mut below = 0;
    for (bound, count) in LATENCY_BOUNDS.iter().zip(&figures.latency.counts) {
        below += count;
        let _ = writeln!(text, "gemel_output_latency_seconds_bucket{{le=\"{}\"}} {below}", seconds(*bound));
    }
    let count = figures.latency.count();
    let _ = writeln!(text, "gemel_output_latency_seconds_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "gemel_output_latency_seconds_sum {}", seconds(figures.latency.sum));
    let _ = writeln!(text, "gemel_output_latency_seconds_count {count}");
    text
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP gemel_{name} {help}\n# TYPE gemel_{name} {kind}");
}
