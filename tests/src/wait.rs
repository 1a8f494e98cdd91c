//! Waiting for a daemon of another project to get somewhere: polling with a deadline, because such daemons send
//! no events. For tests only.

use std::time::Duration;

use clock::{Clock, SystemClock};

/// Asks every 20 ms until `answer` gives something.
///
/// # Panics
/// After `deadline`, naming `what` was waited for.
pub fn until<T>(what: &str, deadline: Duration, mut answer: impl FnMut() -> Option<T>) -> T {
    let begun = SystemClock.monotonic();
    loop {
        if let Some(found) = answer() {
            return found;
        }
        let waited = SystemClock.monotonic().saturating_since(begun);
        assert!(waited < deadline, "waited {waited:?} in vain for: {what}");
        #[allow(
            clippy::disallowed_methods,
            reason = "a foreign daemon's state can only be polled; bounded above"
        )]
        std::thread::sleep(Duration::from_millis(20));
    }
}
