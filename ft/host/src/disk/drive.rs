//! What `--drive` says.
//!
//! Not responsible for: the images (`image`, `overlay`).

use super::{Disk, Image, Overlay, SECTOR};
use crate::error::HostError;
use crate::fields::fields;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the guest's writes go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changes {
    /// Into the image.
    Image,
    /// Into a temporary file, lost at the end.
    Discarded,
    /// Into an overlay file, which is made if it is not there.
    Overlay(PathBuf),
    /// Nowhere: the disk is write-protected.
    Refused,
}

/// A drive, as in `file=PATH,if=virtio,snapshot=on`. A comma in a path is written twice, as for QEMU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriveSpec {
    /// The raw image.
    pub file: PathBuf,
    /// What happens to writes.
    pub changes: Changes,
}

const KNOWN: &str =
    "known are file=PATH, if=virtio, format=raw, snapshot=on|off, overlay=PATH, readonly=on|off";

impl FromStr for DriveSpec {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let refuse = |why: String| HostError::option("--drive", text, why);
        let (mut file, mut overlay, mut snapshot, mut read_only) = (None, None, false, false);
        for field in fields(text) {
            let switch = |value: &str| match value {
                "on" => Ok(true),
                "off" => Ok(false),
                _ => Err(refuse(format!("'{field}' must end in on or off"))),
            };
            match field.split_once('=') {
                Some(("file", path)) if !path.is_empty() => file = Some(PathBuf::from(path)),
                Some(("overlay", path)) if !path.is_empty() => overlay = Some(PathBuf::from(path)),
                Some(("if", "virtio")) | Some(("format", "raw")) => {}
                Some(("if", other)) => return Err(refuse(format!("if={other} is not there; use if=virtio"))),
                Some(("format", _)) => {
                    return Err(refuse("only raw images; convert it with qemu-img".into()));
                }
                Some(("snapshot", value)) => snapshot = switch(value)?,
                Some(("readonly", value)) => read_only = switch(value)?,
                _ => return Err(refuse(format!("'{field}' is not understood; {KNOWN}"))),
            }
        }
        let file = file.ok_or_else(|| refuse("file=PATH is missing".into()))?;
        let changes = match (snapshot, overlay, read_only) {
            (false, None, false) => Changes::Image,
            (true, None, false) => Changes::Discarded,
            (false, Some(path), false) => Changes::Overlay(path),
            (false, None, true) => Changes::Refused,
            _ => return Err(refuse("snapshot, overlay and readonly exclude each other".into())),
        };
        Ok(Self { file, changes })
    }
}

impl DriveSpec {
    /// Opens the disk.
    ///
    /// # Errors
    /// [`HostError::Path`] and [`HostError::Image`] for files that are missing, in use, or not what they must be.
    pub fn open(&self) -> Result<Disk, HostError> {
        let (image, size) = Image::open(&self.file, self.changes == Changes::Image)?;
        let name = self.file.display().to_string();
        let (store, read_only): (Box<dyn super::Store>, bool) = match &self.changes {
            Changes::Image => (Box::new(image), false),
            Changes::Discarded => (Box::new(Overlay::temporary(image, size)?), false),
            Changes::Overlay(path) => (Box::new(Overlay::in_file(image, size, path)?), false),
            Changes::Refused => (Box::new(image), true),
        };
        Ok(Disk::new(name, store, size / SECTOR, read_only))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_qemu_users_write_them() {
        let spec: DriveSpec = "file=a,,b.img,if=virtio,format=raw,snapshot=on".parse().unwrap();
        assert_eq!(spec, DriveSpec { file: "a,b.img".into(), changes: Changes::Discarded });
        let spec: DriveSpec = "if=virtio,file=x,overlay=y".parse().unwrap();
        assert_eq!(spec.changes, Changes::Overlay("y".into()));
        for bad in ["", "x.img", "file=", "file=x,if=ide", "file=x,snapshot=maybe", "file=x,format=qcow2"] {
            assert!(bad.parse::<DriveSpec>().is_err(), "{bad}");
        }
        assert!("file=x,snapshot=on,readonly=on".parse::<DriveSpec>().is_err());
    }

    #[test]
    fn an_image_is_for_one_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, [0; 1024]).unwrap();
        let spec = |changes| DriveSpec { file: path.clone(), changes };
        let first = spec(Changes::Image).open().unwrap();
        assert_eq!(first.sectors(), 2);
        assert!(spec(Changes::Discarded).open().is_err());
        drop(first);
        let _one = spec(Changes::Discarded).open().unwrap();
        assert!(spec(Changes::Refused).open().unwrap().read_only());
        assert!(spec(Changes::Image).open().is_err());
        std::fs::write(&path, [0; 1000]).unwrap();
        assert!(spec(Changes::Refused).open().is_err(), "no whole number of sectors");
    }
}
