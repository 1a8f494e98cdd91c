//! A tap device on a bridge. It exists as long as its descriptor, so that it goes with QEMU and is never left over.

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const IFNAMSIZ: usize = 16;
const IFF_UP: u16 = 0x1;
const IFF_TAP: u16 = 0x2;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const ARPHRD_ETHER: u16 = 1;

const TUNSETIFF: Opcode = 0x4004_54ca;
const SIOCGIFFLAGS: Opcode = 0x8913;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFHWADDR: Opcode = 0x8924;
const SIOCGIFINDEX: Opcode = 0x8933;
const SIOCBRADDIF: Opcode = 0x89a2;

/// The tap's own hardware address, which no frame bears. The bridge takes the lowest one of its ports for its own, so it
/// is the highest that there is: with a lower one a host could change its address when the VM comes, and two hosts
/// between which it moves could not reach each other. All taps may have the same.
const ADDRESS: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

/// The kernel's `struct ifreq`: a name and 24 bytes whose meaning depends on the call.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    name: [u8; IFNAMSIZ],
    value: [u8; 24],
}

const _: () = assert!(size_of::<Request>() == 40, "struct ifreq has 40 bytes on 64-bit kernels");

impl Request {
    fn new(name: &str) -> io::Result<Self> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= IFNAMSIZ || bytes.contains(&0) {
            let text = format!("{name:?} is no name of an interface: 1 to 15 bytes are possible");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut this = Self { name: [0; IFNAMSIZ], value: [0; 24] };
        this.name[..bytes.len()].copy_from_slice(bytes);
        Ok(this)
    }

    fn with_u16(mut self, value: u16) -> Self {
        self.value[..2].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn with_u32(mut self, value: u32) -> Self {
        self.value[..4].copy_from_slice(&value.to_ne_bytes());
        self
    }
}

/// An ioctl that reads and writes an `ifreq`.
struct Call {
    opcode: Opcode,
    request: Request,
}

// SAFETY: every opcode used here takes a pointer to a `struct ifreq`, reads it and may write at most its 40 bytes;
// `Request` has that layout, and any bytes are a valid `Request`.
unsafe impl Ioctl for Call {
    type Output = Request;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(&mut self.request).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, pointer: *mut c_void) -> rustix::io::Result<Request> {
        // SAFETY: the pointer is the one that `as_ptr` gave, to a `Request` that lives until after this call.
        Ok(unsafe { *pointer.cast::<Request>() })
    }
}

fn call(fd: impl AsFd, opcode: Opcode, request: Request) -> rustix::io::Result<Request> {
    // SAFETY: see `Call`; none of the opcodes keeps the pointer.
    unsafe { ioctl(fd, Call { opcode, request }) }
}

fn explained<T>(result: rustix::io::Result<T>, what: &str) -> io::Result<T> {
    result.map_err(|e| {
        let e = io::Error::from(e);
        io::Error::new(e.kind(), format!("{what}: {e}"))
    })
}

/// Makes a tap device for a guest's card, puts it on `bridge` and brings it up.
pub fn open(bridge: &str) -> io::Result<OwnedFd> {
    let bridge_request = Request::new(bridge)?;
    let control = explained(
        socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None),
        "cannot open a socket",
    )?;
    explained(call(&control, SIOCGIFINDEX, bridge_request), "there is no such bridge here; make it first")?;
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(|e| {
        io::Error::new(e.kind(), format!("cannot open /dev/net/tun: {e}; is the tun module loaded?"))
    })?;
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    // The kernel puts a number in place of %d.
    let made = explained(
        call(&tun, TUNSETIFF, Request::new("he-vm%d")?.with_u16(flags)),
        "cannot make a tap device (this needs CAP_NET_ADMIN)",
    )?;
    let tap = Request { value: [0; 24], ..made };
    let mut request = tap.with_u16(ARPHRD_ETHER);
    request.value[2..8].copy_from_slice(&ADDRESS);
    explained(call(&control, SIOCSIFHWADDR, request), "cannot set the tap's address")?;
    let index = explained(call(&control, SIOCGIFINDEX, tap), "cannot find the tap")?;
    let index = u32::from_ne_bytes([index.value[0], index.value[1], index.value[2], index.value[3]]);
    explained(
        call(&control, SIOCBRADDIF, bridge_request.with_u32(index)),
        "cannot put the tap on it; is it a bridge?",
    )?;
    let now = explained(call(&control, SIOCGIFFLAGS, tap), "cannot read the tap's state")?;
    let flags = u16::from_ne_bytes([now.value[0], now.value[1]]) | IFF_UP;
    explained(call(&control, SIOCSIFFLAGS, tap.with_u16(flags)), "cannot bring the tap up")?;
    Ok(tun.into())
}
