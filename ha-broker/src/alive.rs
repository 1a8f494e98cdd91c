//! The agent's list of live hosts, and what it last said about itself. Both are forgotten when they are too old, so
//! that a status display never shows stale data as live. Pure: time comes in with each call.

use std::time::Duration;

use clock::Monotonic;

/// Something that is worth only as much as its age allows.
#[derive(Debug, Clone)]
pub struct Fresh<T> {
    value: Option<(Monotonic, T)>,
    keep: Duration,
}

impl<T> Fresh<T> {
    /// Empty; a value is forgotten `keep` after it was set.
    pub const fn new(keep: Duration) -> Self {
        Self { value: None, keep }
    }

    /// Takes a new value.
    pub fn set(&mut self, value: T, now: Monotonic) {
        self.value = Some((now, value));
    }

    /// The value, unless it is too old or was never set.
    pub fn get(&self, now: Monotonic) -> Option<&T> {
        let (at, value) = self.value.as_ref()?;
        (now.saturating_since(*at) <= self.keep).then_some(value)
    }

    /// How old the value is, forgotten or not.
    pub fn age(&self, now: Monotonic) -> Option<Duration> {
        self.value.as_ref().map(|(at, _)| now.saturating_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_forgotten_after_its_time() {
        let mut list = Fresh::new(Duration::from_mins(1));
        assert_eq!(list.get(Monotonic::from_secs(5)), None);
        list.set(vec![1, 2], Monotonic::from_secs(10));
        assert_eq!(list.get(Monotonic::from_secs(70)), Some(&vec![1, 2]));
        assert_eq!(list.get(Monotonic::from_secs(71)), None);
        assert_eq!(list.age(Monotonic::from_secs(71)), Some(Duration::from_secs(61)));
    }
}
