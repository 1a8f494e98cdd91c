//! Is the management bridge up? Asked over rtnetlink, which answers for this process's network namespace; /sys may
//! be another namespace's.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, State};

use super::options::{MonitorError, Options};
use super::probe::{Probe, Reading, python_bool};
use crate::verbs::MonitorOptions;

/// What the kernel says about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// There is none of that name.
    Missing,
    /// Switched off by an administrator.
    Off,
    /// Switched on, but nothing below it works: no port, or none with a carrier.
    NoCarrier,
    /// Working.
    Up,
}

/// Looks at links.
#[async_trait]
pub trait Links: Send + Sync {
    /// The state of the link `name`; an error in words when the kernel cannot be asked.
    async fn look(&self, name: &str) -> Result<Link, String>;
}

/// The kernel's links in this process's network namespace.
#[derive(Debug, Clone, Copy)]
pub struct KernelLinks;

/// What a link's flags and operational state come to. A kind of link that does not report a state counts as
/// working when it is switched on.
fn judge(flags: LinkFlags, state: Option<State>) -> Link {
    if !flags.contains(LinkFlags::Up) {
        return Link::Off;
    }
    match state {
        Some(State::Up | State::Unknown) | None => Link::Up,
        Some(_) => Link::NoCarrier,
    }
}

#[async_trait]
impl Links for KernelLinks {
    async fn look(&self, name: &str) -> Result<Link, String> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| format!("cannot open rtnetlink: {e}"))?;
        let mut found = Box::pin(handle.link().get().match_name(name.to_owned()).execute());
        let answer = tokio::select! {
            biased;
            answer = found.try_next() => answer,
            () = connection => return Err(format!("rtnetlink ended before it told about link '{name}'")),
        };
        match answer {
            Ok(Some(link)) => {
                let state = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::OperState(state) => Some(*state),
                    _ => None,
                });
                Ok(judge(link.header.flags, state))
            }
            Ok(None) => Ok(Link::Missing),
            Err(rtnetlink::Error::NetlinkError(e)) if is_no_device(e.raw_code()) => Ok(Link::Missing),
            Err(e) => Err(format!("rtnetlink does not tell about link '{name}': {e}")),
        }
    }
}

fn is_no_device(code: i32) -> bool {
    code.abs() == rustix::io::Errno::NODEV.raw_os_error()
}

/// The monitor.
pub struct MgmtBridge {
    name: String,
    links: Box<dyn Links>,
}

impl MgmtBridge {
    /// Looks at the option `bridge_name`, or at `default` when it is not given.
    pub fn from_options(
        given: &MonitorOptions,
        default: &str,
        links: Box<dyn Links>,
    ) -> Result<Self, MonitorError> {
        let options = Options::new("mgmt-bridge", given);
        let name = options.text("bridge_name").unwrap_or(default);
        // IFNAMSIZ is 16 with the closing NUL.
        if name.is_empty() || name.len() > 15 {
            let problem =
                format!("is '{}': give a link's name of 1 to 15 bytes", super::options::shown(name));
            return Err(options.bad("bridge_name", problem));
        }
        Ok(Self { name: name.to_owned(), links })
    }
}

#[async_trait]
impl Probe for MgmtBridge {
    async fn measure(&mut self) -> Result<Reading, String> {
        let name = &self.name;
        let note = match self.links.look(name).await? {
            Link::Up => None,
            Link::Missing => Some(format!("there is no bridge '{name}' on this host")),
            Link::Off => Some(format!("bridge '{name}' is switched off")),
            Link::NoCarrier => Some(format!("bridge '{name}' has no port with a carrier")),
        };
        Ok(Reading::noted(python_bool(note.is_none()), note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Result<Link, String>);

    #[async_trait]
    impl Links for Fixed {
        async fn look(&self, _: &str) -> Result<Link, String> {
            self.0.clone()
        }
    }

    async fn measure(link: Result<Link, String>) -> Result<Reading, String> {
        let links = Box::new(Fixed(link));
        MgmtBridge::from_options(&MonitorOptions::new(), "ovirtmgmt", links).unwrap().measure().await
    }

    #[tokio::test]
    async fn only_a_working_bridge_is_true_and_the_rest_says_why() {
        assert_eq!(measure(Ok(Link::Up)).await, Ok(Reading::plain("True")));
        for (link, why) in [
            (Link::Missing, "there is no bridge 'ovirtmgmt' on this host"),
            (Link::Off, "bridge 'ovirtmgmt' is switched off"),
            (Link::NoCarrier, "bridge 'ovirtmgmt' has no port with a carrier"),
        ] {
            assert_eq!(measure(Ok(link)).await, Ok(Reading::noted("False", Some(why.to_owned()))));
        }
        assert_eq!(measure(Err("no netlink".to_owned())).await, Err("no netlink".to_owned()));
    }

    #[test]
    fn flags_and_state_come_to_one_verdict() {
        assert_eq!(judge(LinkFlags::empty(), Some(State::Up)), Link::Off);
        assert_eq!(judge(LinkFlags::Up, Some(State::Up)), Link::Up);
        assert_eq!(judge(LinkFlags::Up, Some(State::Unknown)), Link::Up);
        assert_eq!(judge(LinkFlags::Up, Some(State::Down)), Link::NoCarrier);
        assert_eq!(judge(LinkFlags::Up, None), Link::Up);
    }

    #[tokio::test]
    async fn the_kernel_knows_lo_and_no_nonsense() {
        assert_eq!(KernelLinks.look("no-such-link").await, Ok(Link::Missing));
        let lo = KernelLinks.look("lo").await.unwrap();
        assert!(matches!(lo, Link::Up | Link::Off), "{lo:?}");
    }

    #[test]
    fn a_name_that_no_link_can_have_is_refused() {
        let given = MonitorOptions::from([("bridge_name".to_owned(), Some("x".repeat(16)))]);
        let error = MgmtBridge::from_options(&given, "ovirtmgmt", Box::new(KernelLinks)).err().unwrap();
        assert!(error.to_string().contains("1 to 15 bytes"), "{error}");
    }
}
