//! What the crate `virt` does not have: events of domains, the end of a connection, numbers of a running job. All of this
//! adapter's calls into C are here.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, clear_error_callback};
use virt::event::{event_register_default_impl, event_run_default_impl};
use virt::sys;

/// Of threads that only wait for libvirt.
pub(super) const STACK: usize = 512 * 1024;
/// Length of a uuid's text with its NUL. Source: `VIR_UUID_STRING_BUFLEN`.
const UUID_TEXT: usize = 37;

/// What a daemon tells by itself. Source of the numbers: <https://libvirt.org/html/libvirt-libvirt-domain.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// `virDomainEventType` and the detail that belongs to it.
    Lifecycle { event: u32, detail: u32 },
    /// The guest restarts.
    Reboot,
    /// The connection ended.
    Closed,
}

/// Who listens. Called in the event loop's thread: must not block.
pub(super) type Listener = Arc<dyn Fn(Told) + Send + Sync>;

/// Starts libvirt's event loop, once in a process and before its first connection: keep-alive and events need it.
pub(super) fn run_event_loop() -> Result<(), String> {
    static LOOP: OnceLock<Result<(), String>> = OnceLock::new();
    LOOP.get_or_init(|| {
        // Otherwise libvirt writes every error to standard error, besides returning it.
        clear_error_callback();
        event_register_default_impl().map_err(|error| error.message().to_owned())?;
        let run = || {
            loop {
                if let Err(error) = event_run_default_impl() {
                    tracing::error!(error = error.message(), "libvirt's event loop stumbled");
                    thread::park_timeout(Duration::from_secs(1));
                }
            }
        };
        let thread = thread::Builder::new().name("libvirt-events".to_owned()).stack_size(STACK);
        thread.spawn(run).map(drop).map_err(|error| format!("cannot start a thread: {error}"))
    })
    .clone()
}

/// How libvirt declares the callback of any event of a domain.
type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// What a callback is given.
struct Context {
    /// Of the domain that matters, in lower case.
    uuid: String,
    listener: Listener,
}

/// A connection with what listens on it.
pub(super) struct Session {
    connect: Connect,
    callbacks: Vec<c_int>,
    is_close_watched: bool,
}

impl Session {
    /// Opens a connection to the daemon at `uri`. Blocks for as long as the daemon pleases.
    pub fn open(uri: &str, uuid: &str, listener: Option<&Listener>) -> Result<Self, Error> {
        let connect = Connect::open(Some(uri))?;
        // A daemon that says nothing for 3 × 3 s is gone. Local drivers have no connection to keep alive.
        if let Err(error) = connect.set_keep_alive(3, 2) {
            tracing::debug!(error = error.message(), "no keep-alive on this connection to libvirt");
        }
        let mut session = Self { connect, callbacks: Vec::new(), is_close_watched: false };
        if let Some(listener) = listener {
            session.listen(uuid, listener)?;
        }
        Ok(session)
    }

    pub fn connect(&self) -> &Connect {
        &self.connect
    }

    pub fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    fn listen(&mut self, uuid: &str, listener: &Listener) -> Result<(), Error> {
        let context = || {
            let context = Context { uuid: uuid.to_ascii_lowercase(), listener: listener.clone() };
            Box::into_raw(Box::new(context)).cast::<c_void>()
        };
        // SAFETY: libvirt takes the callback of every kind of event as this type and calls it as the kind that was asked
        // for, which is the function's true type (VIR_DOMAIN_EVENT_CALLBACK in its header).
        let lifecycle = unsafe {
            std::mem::transmute::<
                unsafe extern "C" fn(
                    sys::virConnectPtr,
                    sys::virDomainPtr,
                    c_int,
                    c_int,
                    *mut c_void,
                ) -> c_int,
                Generic,
            >(on_lifecycle)
        };
        let kinds: [(sys::virDomainEventID, Generic); 2] =
            [(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle), (sys::VIR_DOMAIN_EVENT_ID_REBOOT, on_reboot)];
        for (kind, callback) in kinds {
            let opaque = context();
            // SAFETY: the connection is open; `opaque` is a Context that `free` ends, once, when libvirt is done with it.
            let id = unsafe {
                sys::virConnectDomainEventRegisterAny(
                    self.connect.as_ptr(),
                    ptr::null_mut(),
                    kind.cast_signed(),
                    Some(callback),
                    opaque,
                    Some(free),
                )
            };
            if id < 0 {
                let error = Error::last_error();
                // SAFETY: libvirt leaves it to the caller when it refuses.
                unsafe { free(opaque) };
                return Err(error);
            }
            self.callbacks.push(id);
        }
        let opaque = context();
        // SAFETY: as above.
        let registered = unsafe {
            sys::virConnectRegisterCloseCallback(self.connect.as_ptr(), Some(on_close), opaque, Some(free))
        };
        if registered < 0 {
            let error = Error::last_error();
            // SAFETY: as above.
            unsafe { free(opaque) };
            return Err(error);
        }
        self.is_close_watched = true;
        Ok(())
    }
}

impl Drop for Session {
    /// Blocks for as long as the daemon pleases. What listens holds the connection: without this it would never close.
    fn drop(&mut self) {
        for id in &self.callbacks {
            // SAFETY: the connection exists, and the callback is registered on it.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), *id) };
        }
        if self.is_close_watched {
            // SAFETY: as above.
            unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close)) };
        }
    }
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: it was made by `Box::into_raw` in `listen`, and libvirt calls this once.
    drop(unsafe { Box::from_raw(opaque.cast::<Context>()) });
}

/// Tells the listener, if the event is about its domain.
///
/// # Safety
/// `opaque` must be a live [`Context`], and `domain` a live domain.
unsafe fn tell(domain: sys::virDomainPtr, opaque: *mut c_void, told: Told) {
    // SAFETY: the caller promises it; nobody changes a context.
    let context = unsafe { &*opaque.cast::<Context>() };
    let mut text = [0; UUID_TEXT];
    // SAFETY: the buffer is as long as libvirt wants it, and it ends it with a NUL.
    let uuid = unsafe {
        if sys::virDomainGetUUIDString(domain, text.as_mut_ptr()) != 0 {
            return;
        }
        CStr::from_ptr(text.as_ptr())
    };
    if uuid.to_str().is_ok_and(|uuid| uuid == context.uuid) {
        (context.listener)(told);
    }
}

unsafe extern "C" fn on_lifecycle(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let told = Told::Lifecycle { event: event.cast_unsigned(), detail: detail.cast_unsigned() };
    // SAFETY: libvirt gives the context of this registration and the event's domain.
    unsafe { tell(domain, opaque, told) };
    0
}

unsafe extern "C" fn on_reboot(_connect: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: as above.
    unsafe { tell(domain, opaque, Told::Reboot) };
}

unsafe extern "C" fn on_close(_connect: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: libvirt gives the context of this registration.
    let context = unsafe { &*opaque.cast::<Context>() };
    (context.listener)(Told::Closed);
}

/// A job of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Job {
    /// `virDomainJobType`: 0 when there is none.
    pub kind: i32,
    /// `virDomainJobOperation`.
    pub operation: i32,
    /// Bytes done.
    pub processed: u64,
    /// Bytes to do, as estimated.
    pub remaining: u64,
}

/// What job the domain is at.
pub(super) fn job(domain: &Domain) -> Result<Job, Error> {
    let mut job = Job::default();
    let mut params: sys::virTypedParameterPtr = ptr::null_mut();
    let mut count: c_int = 0;
    // SAFETY: the domain is live; libvirt allocates the list, which is given back below.
    let answer = unsafe {
        sys::virDomainGetJobStats(domain.as_ptr(), &raw mut job.kind, &raw mut params, &raw mut count, 0)
    };
    if answer < 0 {
        return Err(Error::last_error());
    }
    // SAFETY: the list has `count` entries, the names end with NUL, and each value is of the type that libvirt documents
    // for it; of another type the call fails and leaves the value alone.
    unsafe {
        sys::virTypedParamsGetInt(params, count, c"operation".as_ptr(), &raw mut job.operation);
        sys::virTypedParamsGetULLong(params, count, c"memory_processed".as_ptr(), &raw mut job.processed);
        sys::virTypedParamsGetULLong(params, count, c"memory_remaining".as_ptr(), &raw mut job.remaining);
        sys::virTypedParamsFree(params, count);
    }
    Ok(job)
}

/// Asks libvirt to break the domain's job off.
pub(super) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is live.
    let answer = unsafe { sys::virDomainAbortJob(domain.as_ptr()) };
    if answer < 0 { Err(Error::last_error()) } else { Ok(()) }
}
