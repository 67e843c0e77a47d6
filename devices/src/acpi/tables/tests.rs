use super::*;
use std::process::Command;

fn tables() -> (GuestRam, Vec<(String, u64, Vec<u8>)>) {
    let ram = GuestRam::new(2 << 20).unwrap();
    let rsdp = write(&ram).unwrap();
    let long = |at| u64::from_le_bytes(ram.read_array(at).unwrap());
    let read = |at: u64| {
        let header: [u8; 8] = ram.read_array(at).unwrap();
        let mut table = vec![0; u32::from_le_bytes(header[4..].try_into().unwrap()) as usize];
        ram.read(at, &mut table).unwrap();
        (String::from_utf8_lossy(&header[..4]).into_owned(), at, table)
    };
    let xsdt = read(long(rsdp + 24));
    let mut all: Vec<_> =
        xsdt.2[36..].chunks(8).map(|p| read(u64::from_le_bytes(p.try_into().unwrap()))).collect();
    let fadt = all[0].2.clone();
    all.push(read(u64::from_le_bytes(fadt[140..148].try_into().unwrap())));
    all.push(read(u32::from_le_bytes(fadt[36..40].try_into().unwrap()).into()));
    all.push(xsdt);
    (ram, all)
}

#[test]
fn every_table_is_found_and_sums_to_zero() {
    let (ram, tables) = tables();
    let names: Vec<_> = tables.iter().map(|t| t.0.as_str()).collect();
    assert_eq!(names, ["FACP", "APIC", "DSDT", "FACS", "XSDT"]);
    for (name, at, table) in &tables {
        assert!(BIOS_AREA.contains(at) && BIOS_AREA.contains(&(at + table.len() as u64)), "{name}");
        if name != "FACS" {
            assert_eq!(table.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0, "{name}");
        }
    }
    let rsdp: [u8; 36] = ram.read_array(RSDP).unwrap();
    assert_eq!(RSDP % 16, 0);
    for range in [0..20, 0..36] {
        assert_eq!(rsdp[range].iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
    }
}

/// The compiler of the ACPI project must read our DSDT as AML, and write it again without an error.
#[test]
fn the_reference_disassembler_reads_the_tables() {
    let there = Command::new("iasl").arg("-v").output().is_ok();
    assert!(there, "iasl is not installed: run tests/setup.sh, or install Debian's acpica-tools");
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let out = Command::new("iasl").args(args).current_dir(dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "iasl {args:?}: {text}");
        text
    };
    for (name, _, table) in tables().1 {
        std::fs::write(dir.path().join(format!("{name}.dat")), table).unwrap();
        run(&["-d", &format!("{name}.dat")]);
    }
    let source = std::fs::read_to_string(dir.path().join("DSDT.dsl")).unwrap();
    for wanted in [
        "Device (PCI0)",
        "EisaId (\"PNP0A03\")",
        "Name (_S5",
        "Method (_PIC, 1",
        "Device (COM1)",
        "Return (PRTP)",
    ] {
        assert!(source.contains(wanted), "{wanted} is missing from\n{source}");
    }
    let report = run(&["-tc", "DSDT.dsl"]);
    assert!(report.contains("0 Errors"), "{report}");
}
