//! Who is watched, and whether the watchdog may be petted. Pure: no I/O; time comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::Request;

/// Number of a connection.
pub type ClientId = u64;

/// Since the daemon began.
pub type Instant = Duration;

#[derive(Debug, Default)]
struct Client {
    name: String,
    is_counted: bool,
    expires: Option<Instant>,
    is_gone: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Clients {
    clients: BTreeMap<ClientId, Client>,
}

impl Clients {
    /// Somebody connected.
    pub fn connected(&mut self, id: ClientId) {
        self.clients.insert(id, Client::default());
    }

    /// A request came, at `now`. `speed`: so many of the client's seconds pass in one of ours.
    pub fn asked(&mut self, id: ClientId, request: &Request, now: Instant, speed: u32) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match request {
            Request::Register { name } => client.name.clone_from(name),
            Request::RefcountSet => client.is_counted = true,
            Request::RefcountClear => client.is_counted = false,
            Request::TestLive { for_secs } => {
                client.expires = for_secs.map(|secs| now + Duration::from_secs(secs) / speed);
            }
            Request::Status | Request::OpenWatchdog { .. } | Request::Unknown { .. } => {}
        }
    }

    /// A connection ended. One that was being watched goes on being watched: nobody can renew it any more, so it expires.
    pub fn disconnected(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id)
            && client.expires.is_some()
        {
            client.is_gone = true;
        } else {
            self.clients.remove(&id);
        }
    }

    /// Why the watchdog must not be petted at `now`; `None` when it may be.
    pub fn expired(&self, now: Instant) -> Option<String> {
        let late = |client: &&Client| client.expires.is_some_and(|at| at <= now);
        let client = self.clients.values().find(late)?;
        let how = if client.is_gone { "has ended" } else { "is connected" };
        let secs = client.expires.map_or(Duration::ZERO, |at| now.saturating_sub(at)).as_secs_f64();
        Some(format!("{} {how} and has not renewed itself: expired {secs:.1} s ago", client.name))
    }

    /// Whether the daemon may end in order.
    pub fn may_end(&self) -> bool {
        !self.clients.values().any(|client| client.is_counted || client.expires.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Instant = Duration::from_secs;

    fn watched() -> Clients {
        let mut clients = Clients::default();
        clients.connected(1);
        clients.asked(1, &Request::Register { name: "sanlock_x:1".to_owned() }, AT(0), 1);
        clients.asked(1, &Request::RefcountSet, AT(0), 1);
        clients.asked(1, &Request::TestLive { for_secs: Some(80) }, AT(0), 1);
        clients
    }

    #[test]
    fn who_renews_in_time_is_alive_and_who_does_not_is_named() {
        let mut clients = watched();
        assert_eq!(clients.expired(AT(79)), None);
        clients.asked(1, &Request::TestLive { for_secs: Some(80) }, AT(20), 1);
        assert_eq!(clients.expired(AT(99)), None);
        assert!(clients.expired(AT(100)).is_some_and(|why| why.contains("sanlock_x:1 is connected")));
        assert!(!clients.may_end());
    }

    #[test]
    fn a_client_that_dies_while_it_is_watched_expires_and_one_that_left_does_not() {
        let mut clients = watched();
        clients.disconnected(1);
        assert_eq!(clients.expired(AT(79)), None);
        assert!(clients.expired(AT(80)).is_some_and(|why| why.contains("has ended")));
        let mut clients = watched();
        clients.asked(1, &Request::TestLive { for_secs: None }, AT(1), 1);
        clients.asked(1, &Request::RefcountClear, AT(1), 1);
        assert!(clients.may_end());
        clients.disconnected(1);
        assert_eq!(clients.expired(AT(1000)), None);
    }

    #[test]
    fn a_clients_clock_may_run_faster() {
        let mut clients = Clients::default();
        clients.connected(1);
        clients.asked(1, &Request::TestLive { for_secs: Some(80) }, AT(0), 10);
        assert_eq!(clients.expired(AT(7)), None);
        assert!(clients.expired(AT(8)).is_some());
    }
}
