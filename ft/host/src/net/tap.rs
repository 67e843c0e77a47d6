#![allow(unsafe_code)] // the request that makes a file a tap interface is not in rustix
//! A tap interface of the host: what the guest sends the host's kernel receives there, and the other way round.
//!
//! Not responsible for: making the interface last, its addresses, the bridge it is in (`ip tuntap`, `ip link`).

use super::announce::announce;
use super::{Backend, LONGEST, Port};
use crate::error::HostError;
use crate::signals::spawn;
use rustix::ioctl::{Opcode, Setter, ioctl};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

const DEVICE: &str = "/dev/net/tun";
/// Linux `uapi/linux/if_tun.h`.
const TUNSETIFF: Opcode = 0x4004_54ca;
const IFF_TAP: u16 = 2;
/// Frames without a word before them.
const IFF_NO_PI: u16 = 0x1000;

/// `struct ifreq`, as far as this request goes.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// A tap interface.
pub(super) struct Tap(Arc<File>);

impl Tap {
    /// Attaches to an interface, or makes it for as long as the run lasts, and starts the thread that reads from it.
    pub fn open(ifname: &str, port: Port) -> Result<Self, HostError> {
        let mut options = File::options();
        let file = options.read(true).write(true).open(DEVICE);
        let file = Arc::new(file.map_err(|e| HostError::path("open", DEVICE, e))?);
        let mut request = Request { name: [0; 16], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
        // The last byte stays zero.
        for (to, from) in request.name.iter_mut().take(15).zip(ifname.bytes()) {
            *to = from;
        }
        // SAFETY: TUNSETIFF reads a `struct ifreq`, which `Request` is in size and layout, and keeps no pointer to it.
        let attached = unsafe { ioctl(&*file, Setter::<TUNSETIFF, Request>::new(request)) };
        attached.map_err(|e| HostError::Tap { ifname: ifname.to_owned(), source: e.into() })?;
        let reader = Arc::clone(&file);
        spawn("tap", move || read_frames(&reader, &port))?;
        Ok(Self(file))
    }
}

fn read_frames(file: &File, port: &Port) {
    let mut buffer = [0; 1 << 16];
    loop {
        match (&mut &*file).read(&mut buffer) {
            // A longer one is of an interface whose MTU was raised, and the guest's has not been.
            Ok(length) if length > LONGEST => {}
            Ok(length) => {
                if !port.deliver(buffer[..length].to_vec()) {
                    return;
                }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return crate::warn(format_args!("nothing more comes from the tap interface: {e}")),
        }
    }
}

impl Backend for Tap {
    fn send(&mut self, frame: Vec<u8>) {
        // An interface that is down takes nothing, like a wire that is not plugged in.
        let _ = (&mut &*self.0).write(&frame);
    }

    fn went_live(&mut self, mac: [u8; 6]) {
        let file = Arc::clone(&self.0);
        announce(mac, move |frame| {
            let _ = (&mut &*file).write(&frame);
        });
    }
}
