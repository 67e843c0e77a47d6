//! A side's figures: watched, exported, and a log's traffic reckoned.

use super::pair::{ASKS_AND_SLEEPS, Process, SIDE, wait_until};
use super::{edit, gemel, kernel, record_spin};
use gemel_log::{Body, Entry};
use gemel_machine::{DiskStatus, Input};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// What an HTTP server answers to `request`.
fn http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of a metric in Prometheus' text format.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_pairs_figures_can_be_watched_and_scraped() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("guest"), kernel(ASKS_AND_SLEEPS)).unwrap();
    let side = |role: &str, place: &str| {
        format!("{role} {place} --console unix:{role} --control {role}.control --metrics 127.0.0.1:0 {SIDE}")
    };
    let said = |role: &str| fs::read_to_string(folder.join(format!("{role}.err"))).unwrap_or_default();
    let _primary = Process::start(folder, &side("primary", "--listen unix:link"));
    wait_until("the primary", || said("primary").contains("waiting"));
    let mut secondary = Process::start(folder, &side("secondary", "--connect unix:link"));
    let _console = Process::start(folder, "console unix:primary unix:secondary");
    wait_until("the question", || fs::read(folder.join("console.out")).unwrap() == b"?");

    let said_by_primary = said("primary");
    let (_, rest) = said_by_primary.split_once("metrics on http://").unwrap();
    let address = rest.split_once("/metrics").unwrap().0;
    let scraped = http(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(scraped.starts_with("HTTP/1.1 200 OK\r\n") && scraped.contains("version=0.0.4"), "{scraped}");
    for (name, value) in [
        ("gemel_protected", 1.0),
        ("gemel_members", 2.0),
        ("gemel_outputs_total", 1.0),
        ("gemel_outputs_held", 0.0),
        ("gemel_clones_total", 0.0),
        ("gemel_phase{phase=\"Primary\"}", 1.0),
        ("gemel_output_latency_seconds_count", 1.0),
        ("gemel_output_latency_seconds_bucket{le=\"+Inf\"}", 1.0),
    ] {
        assert_eq!(metric(&scraped, name), value, "{name}");
    }
    assert!(metric(&scraped, "gemel_log_bytes_total{class=\"other\"}") > 0.0);
    assert!(metric(&scraped, "gemel_output_latency_seconds_sum") > 0.0);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "400"),
        ("nonsense", "400"),
        (&"x".repeat(9000), "400"),
    ] {
        // Whoever sends too much may see the connection reset.
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(read.is_err() || answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }

    let sides = "unix:primary secondary.control";
    let output = gemel(folder, &format!("top --once --json --interval 100 {sides}"));
    let told = json_lines(&output.stdout);
    assert_eq!(told.len(), 2, "{output:?}");
    for (side, phase) in told.iter().zip(["Primary", "Secondary"]) {
        assert_eq!((&side["figures"]["phase"], &side["protected"]), (&phase.into(), &true.into()), "{side}");
        assert!(side["log_bytes_per_s"]["disk"].is_number(), "{side}");
    }
    let output = gemel(folder, "estimate primary.control --interval 100 --json");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!((&told["disk_read_bytes"], &told["rule_mbit_per_s"]), (&0.into(), &0.0.into()), "{told}");
    assert_eq!(gemel(folder, "estimate nobody").status.code(), Some(2));
    secondary.0.kill().unwrap();
    let gone = || {
        let output = gemel(folder, &format!("top --interval 100 {sides}"));
        String::from_utf8(output.stdout).unwrap()
    };
    wait_until("the loss", || gone().contains("UNPROTECTED"));
    let scraped = http(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((metric(&scraped, "gemel_protected"), metric(&scraped, "gemel_members")), (0.0, 1.0));
    assert!(metric(&scraped, "gemel_unprotected_seconds_total") > 0.0, "{scraped}");
    let shown = gone();
    assert!(
        shown.contains("unix:primary  Live  epoch") && shown.contains("secondary.control  cannot"),
        "{shown}"
    );
    let output = gemel(folder, "top --once --interval 100 unix:nobody nobody");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// The spinning guest's log with a disk read and a frame in it, which no machine is asked to replay.
fn log_with_traffic(folder: &Path) {
    record_spin(folder);
    edit(folder, "run.gml", "traffic.gml", |entry| {
        let input = |input| Entry { at: entry.at, body: Body::Input { input, number: None } };
        let read = Input::DiskDone { disk: 0, tag: 1, status: DiskStatus::Ok, data: vec![7; 40_960] };
        let frame = Input::Frame { nic: 0, bytes: vec![9; 1000] };
        match entry.body {
            Body::End { .. } => vec![input(read), input(frame), entry.clone()],
            _ => vec![entry.clone()],
        }
    });
}

#[test]
fn an_estimate_stands_beside_what_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    log_with_traffic(folder);
    let output = gemel(folder, "estimate traffic.gml --json");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!((&told["disk_read_bytes"], &told["received_bytes"]), (&40_960.into(), &1000.into()), "{told}");
    let seconds = told["seconds"].as_f64().unwrap();
    // VMware: ((disk reads in MB/s x 8) + received Mbit/s) x 1.2.
    let rule = (0.040_96 * 8.0 + 0.001 * 8.0) * 1.2 / seconds;
    let near = |name: &str, value: f64| {
        let found = told[name].as_f64().unwrap();
        assert!((found - value).abs() <= value * 1e-6, "{name}: {found}, not {value}");
    };
    near("rule_mbit_per_s", rule);
    // By class and together they are the file.
    let classes: u64 = told["log_bytes"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
    let length = fs::metadata(folder.join("traffic.gml")).unwrap().len();
    assert_eq!(classes, length, "{told}");
    near("log_mbit_per_s", length as f64 * 8e-6 / seconds);
    near("carried_mbit_per_s", length as f64 * 8e-6 / seconds);
    let from_image = told["from_image_mbit_per_s"].as_f64().unwrap() * seconds / 8e-6;
    assert!(from_image < length as f64 - 40_900.0 && from_image > length as f64 - 40_960.0, "{from_image}");
    let output = gemel(folder, "estimate traffic.gml");
    assert!(String::from_utf8_lossy(&output.stdout).contains("rule of thumb"), "{output:?}");
    assert_eq!(gemel(folder, "estimate kernel").status.code(), Some(2));
}
