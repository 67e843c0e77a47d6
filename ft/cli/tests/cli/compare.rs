//! Logs are judged and compared, and what is found can be looked at again.
//!
//! Not responsible for: engines with faults (`ft/diverge/tests`).

use super::{edit, figures, record_spin};
use gemel_log::{Body, Entry};
use gemel_machine::Input;
use std::fs;

#[test]
fn a_good_log_is_found_good_whatever_the_interval() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    record_spin(at);
    for (options, compared) in [("", 5500), ("--interval 700", 5500), ("--interval 1000 --sample 3", 2000)] {
        let (status, verdict) = figures(at, &format!("verify run.gml {options}"));
        assert_eq!((status, verdict["exit"].as_str()), (Some(0), Some("log-end")), "{verdict}");
        assert_eq!(
            (&verdict["instructions"], &verdict["compared"]),
            (&5500.into(), &compared.into()),
            "{options}"
        );
    }
    let (status, verdict) = figures(at, "diff run.gml run.gml");
    assert_eq!((status, verdict["entries"].is_null()), (Some(0), true), "{verdict}");
}

#[test]
fn a_log_with_a_wrong_digest_is_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    record_spin(at);
    edit(at, "run.gml", "other.gml", |entry| {
        if let (3000, Body::Digest(digest)) = (entry.at.position.count, &mut entry.body) {
            digest.cpu ^= 1;
        }
        vec![entry.clone()]
    });
    let (status, verdict) = figures(at, "verify other.gml");
    assert_eq!((status, &verdict["instructions"]), (Some(4), &3000.into()), "{verdict}");
    assert!(verdict["message"].as_str().unwrap().contains("not what the log says"), "{verdict}");
}

#[test]
fn two_runs_part_where_only_one_got_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    record_spin(at);
    edit(at, "run.gml", "other.gml", |entry| {
        let mut entries = vec![entry.clone()];
        if entry.at.position.count == 3000 {
            let input = Input::Serial { port: 0, bytes: b"x".to_vec() };
            entries.push(Entry { at: entry.at, body: Body::Input { input, number: None } });
        }
        // What the digests are with the byte is not known here.
        entries.retain(|entry| entry.at.position.count <= 3000);
        entries
    });
    let (status, verdict) = figures(at, "diff run.gml other.gml");
    assert_eq!((status, &verdict["entries"]["number"]), (Some(4), &3.into()), "{verdict}");
    let difference = &verdict["difference"];
    assert_eq!(difference["at"]["position"]["count"], 3000, "{verdict}");
    let devices: Vec<_> =
        difference["devices"].as_array().unwrap().iter().map(|d| d["device"].clone()).collect();
    assert!(devices.contains(&"uart0".into()), "{devices:?}");
    assert!(difference["instruction"]["text"].as_str().unwrap().starts_with("jmp"), "{difference}");

    // The evidence is a machine and the first log's entries from there on: the interpreter does there what they say.
    assert_eq!(verdict["evidence"], "run.gml.diverged");
    fs::remove_file(at.join("kernel")).unwrap();
    let (status, again) = figures(at, "verify run.gml.diverged");
    assert_eq!((status, &again["instructions"]), (Some(8), &4000.into()), "{again}");

    let (status, verdict) = figures(at, "diff --entries-only run.gml other.gml");
    assert_eq!((status, &verdict["entries"]["number"]), (Some(4), &3.into()), "{verdict}");
}
