//! Bad input gets one clear line and exit code 2, and nothing is left behind.
//!
//! Not responsible for: what happens once a guest runs (`endings`).

use super::{gemel, kernel};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

fn files(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    names.collect()
}

/// Runs `gemel` in a folder and checks the complaint: it names `wanted`, and the folder is as before.
fn refuses(folder: &Path, arguments: &str, wanted: &str) {
    let before = files(folder);
    let output = gemel(folder, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments}: {complaint}");
    assert!(complaint.starts_with("gemel: ") && complaint.trim_end().lines().count() == 1, "{complaint}");
    assert!(complaint.contains(wanted), "{arguments}: {complaint}");
    assert!(output.stdout.is_empty(), "{arguments}");
    assert_eq!(files(folder), before, "{arguments} left something behind");
}

#[test]
fn options_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("text"), "this is no kernel").unwrap();
    fs::write(at.join("odd.img"), [0; 700]).unwrap();
    for (arguments, wanted) in [
        ("run", "--kernel"),
        ("run --kernel", "--kernel"),
        ("run --warp", "--warp"),
        ("run --kernel missing", "missing"),
        ("run --kernel .", "kernel"),
        ("run --kernel text", "not a kernel"),
        ("run --kernel text --initrd missing", "missing"),
        ("run --kernel text -m lots", "MiB"),
        ("run --kernel text -m 0", "RAM"),
        ("run --kernel text --cpu pentium", "pentium"),
        ("run --kernel text --cpu x86-64-v2,+warp", "warp"),
        ("run --kernel text --clock sundial", "sundial"),
        ("run --kernel text --rtc-base yesterday", "utc"),
        ("run --kernel text --drive missing", "file=PATH"),
        ("run --kernel text --drive file=missing", "missing"),
        ("run --kernel text --drive file=odd.img", "700 bytes"),
        ("run --kernel text --drive file=odd.img,if=floppy", "if=virtio"),
        ("run --kernel text --serial modem", "modem"),
        ("record --kernel text", "-o"),
        ("record -o run.gml --kernel text", "not a kernel"),
        ("replay", "LOG"),
        ("replay missing.gml", "missing.gml"),
        ("replay text", "not a Gemel log"),
        ("log show missing.gml", "missing.gml"),
        ("log show text", "not a Gemel log"),
    ] {
        refuses(at, arguments, wanted);
    }
}

#[test]
fn addresses_and_places_that_cannot_be_had() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("kernel"), kernel(&[0xfa, 0xf4])).unwrap();
    fs::write(at.join("disk.img"), [0; 1024]).unwrap();
    let _taken = UnixListener::bind(at.join("taken")).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = port.local_addr().unwrap();
    let _keep = TcpListener::bind(port);
    for (arguments, wanted) in [
        ("run --kernel kernel --serial unix:taken,server", "another process listens"),
        ("run --kernel kernel --serial unix:nobody", "start the other end"),
        ("run --kernel kernel --serial file:no/such/folder", "no/such/folder"),
        ("run --kernel kernel --serial null --control taken", "another process listens"),
        ("run --kernel kernel --serial stdio --serial stdio", "twice"),
        ("run --kernel kernel --serial null --serial null --serial null", "2 ports"),
        ("run --kernel kernel --debugcon file:no/such/folder", "no/such/folder"),
        ("run --kernel kernel --serial null --digests no/such/folder", "no/such/folder"),
        ("record -o no/such/folder --kernel kernel --serial null", "no/such/folder"),
        ("record -o run.gml --kernel kernel --reads image --drive file=disk.img", "snapshot=on"),
    ] {
        refuses(at, arguments, wanted);
    }
    refuses(at, &format!("run --kernel kernel --serial tcp:{},server", port), "free port");
}

#[test]
fn logs_of_another_version_or_another_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("kernel"), kernel(&[0xfa, 0xf4])).unwrap();
    let recorded = gemel(at, "record -o run.gml --kernel kernel --serial null");
    assert_eq!(recorded.status.code(), Some(5), "{recorded:?}");
    let log = fs::read(at.join("run.gml")).unwrap();
    let variant = |name: &str, byte: usize| {
        let mut log = log.clone();
        log[byte] ^= 0x40;
        fs::write(at.join(name), log).unwrap();
    };
    variant("version.gml", 8);
    variant("damaged.gml", 40);
    fs::write(at.join("short.gml"), &log[..30]).unwrap();
    fs::write(at.join("other"), kernel(&[0xfa, 0xf4, 0xf4])).unwrap();
    refuses(at, "replay version.gml", "format");
    refuses(at, "replay damaged.gml", "damaged");
    refuses(at, "replay short.gml", "cut off");
    refuses(at, "replay run.gml --kernel other", "not the kernel that the log was made with");
    fs::remove_file(at.join("kernel")).unwrap();
    refuses(at, "replay run.gml", "kernel");
}
