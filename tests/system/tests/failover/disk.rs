//! A primary that dies while its guest writes to its disk.
//!
//! Not responsible for the pair's command lines and the oracle (`trial`).
//!
//! The guest `blocks` says of each block when it is complete and when it is flushed, and reads all of them back at its end. Each side
//! has an image of its own, as on two hosts.

use crate::console::Console;
use crate::trial::{self, Dice, FAILED_OVER, Fault, Outcome, SOON, side};
use anyhow::{Context, Result, bail, ensure};
use gemel_system_tests::engine::Engine;
use gemel_system_tests::gemel::gemel_with;
use gemel_system_tests::guest::Guest;
use gemel_system_tests::results;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

const BLOCK: usize = 4096;

/// One pair whose primary gets a SIGKILL.
pub struct DiskTrial<'a> {
    pub guest: &'a Guest,
    pub seed: u64,
}

/// What the guest said of its blocks.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// Blocks complete.
    written: usize,
    /// Blocks flushed.
    synced: usize,
}

/// Reads the console: numbers without gap or repetition.
fn read_console(shown: &[u8]) -> Result<Said> {
    let text = String::from_utf8_lossy(shown);
    let mut said = Said { written: 0, synced: 0 };
    for line in text.split("\r\n") {
        let Some((word @ ("WROTE" | "SYNCED" | "FAILED"), number)) = line.split_once(' ') else { continue };
        said.written += 1;
        ensure!(number == said.written.to_string(), "'{line}' stands where block {} belongs", said.written);
        ensure!(word != "FAILED", "the guest could not write block {number}");
        if word == "SYNCED" {
            said.synced = said.written;
        }
    }
    Ok(said)
}

/// Whether the image has the first `count` blocks as the guest writes them.
fn check_image(image: &[u8], count: usize) -> Result<()> {
    for number in 1..=count {
        let wanted = format!("{:<width$}\n", format!("BLOCK {number}"), width = BLOCK - 1);
        let found = image.get((number - 1) * BLOCK..number * BLOCK).context("the image is too short")?;
        if found != wanted.as_bytes() {
            bail!("block {number} of {count} begins with {:?}", String::from_utf8_lossy(&found[..16]));
        }
    }
    Ok(())
}

/// Checks that this module sees every way to go wrong; run before anything is believed.
pub fn prove() {
    let good = "boot\r\nWROTE 1\r\nWROTE 2\r\nWROTE 3\r\nSYNCED 4\r\nWROTE 5\r\n@OUT blocks 0 wrong\r\n";
    assert_eq!(read_console(good.as_bytes()).unwrap(), Said { written: 5, synced: 4 });
    for (from, to) in [
        ("WROTE 2\r\n", ""),
        ("WROTE 2", "FAILED 2"),
        ("SYNCED 4\r\n", "SYNCED 4\r\nSYNCED 4\r\n"),
        ("WROTE 3", "WROTE 7"),
    ] {
        assert!(read_console(good.replacen(from, to, 1).as_bytes()).is_err(), "'{from}' turned into '{to}'");
    }
    let block = |number| format!("BLOCK {number:<4089}\n");
    let image = [block(1), block(2)].concat().into_bytes();
    check_image(&image, 2).unwrap();
    assert!(check_image(&image, 3).is_err() && check_image(&image[..5000], 2).is_err());
    assert!(check_image(&[block(1), block(1)].concat().into_bytes(), 2).is_err());
}

impl DiskTrial<'_> {
    pub fn run(&self) -> Result<Outcome> {
        prove();
        trial::in_folder(|folder| self.play(folder))
    }

    /// A copy of the guest's image for one side, and the option that attaches it.
    fn image(&self, folder: &Path, role: &str) -> Result<(PathBuf, [String; 2])> {
        let copy = folder.join(format!("{role}.raw"));
        fs::copy(self.guest.disk.as_ref().context("a guest without a disk")?, &copy)?;
        let option = ["--drive".to_owned(), format!("file={},if=virtio", copy.display())];
        Ok((copy, option))
    }

    fn play(&self, folder: &Path) -> Result<Outcome> {
        let mut dice = Dice(self.seed);
        // The images that the sides get instead are theirs to write to.
        let mut guest = self.guest.clone();
        guest.disk = None;
        let (images, drives): (Vec<_>, Vec<_>) = ["primary", "secondary"]
            .iter()
            .map(|role| self.image(folder, role))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .unzip();
        let fault = Fault::KillPrimary;
        let (mut primary, address) =
            trial::primary(side(folder, "primary", gemel_with("primary", &guest)?, fault).args(&drives[0]))?;
        let secondary = trial::secondary(
            side(folder, "secondary", gemel_with("secondary", &guest)?, fault).args(&drives[1]),
            &address,
        )?;
        let mut console = Console::start(folder, trial::places(folder).each_ref().map(String::as_str))?;
        console.wait_for("@READY blocks", trial::BOOT)?;

        sleep(Duration::from_millis(dice.between(400, 2400)));
        let killed = trial::now();
        let early = console.side_live_in(FAILED_OVER)?;
        if early.is_none() {
            primary.kill()?;
        }
        console.wait_for_epoch(FAILED_OVER, SOON)?;
        sleep(Duration::from_millis(dice.between(300, 1000)));
        console.type_line("enough")?;
        let shown = console.finish(trial::BOOT)?;

        let said = read_console(&shown)?;
        ensure!(said.synced > 0, "the guest wrote {} blocks only", said.written);
        results::check(&guest.expected, &shown)?;
        let survivor = console.side_live_in(FAILED_OVER)?.context("nobody claimed the epoch")?;
        let (mut sides, role) = ([Some(primary), Some(secondary)], ["primary", "secondary"][survivor]);
        sides[survivor].take().context("no such side")?.succeed()?;
        check_image(&fs::read(&images[survivor])?, said.written).context("the survivor's image")?;
        trial::replay(folder, role, Engine::Interp, &shown)?;
        trial::ledgers(folder, &shown, fault)?;
        if early.is_some() {
            return Ok(Outcome { early: true, ..Outcome::default() });
        }
        ensure!(role == "secondary", "the {role} survived");
        trial::outcome(folder, role, killed, &console.events()?)
    }
}
