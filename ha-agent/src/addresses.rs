//! This host's network addresses, asked over rtnetlink, which answers for this process's network namespace.

use std::net::IpAddr;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;

use crate::ports::Addresses;

/// The kernel's word for a link that is not there.
const NO_DEVICE: i32 = rustix::io::Errno::NODEV.raw_os_error();

/// The kernel's.
#[derive(Debug, Clone, Copy)]
pub struct KernelAddresses;

#[async_trait]
impl Addresses for KernelAddresses {
    async fn of_link(&self, name: &str) -> Result<Option<IpAddr>, String> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| format!("cannot open rtnetlink: {e}"))?;
        let asked = Box::pin(async {
            let failed = |e| format!("rtnetlink does not tell the addresses of '{name}': {e}");
            let mut links = handle.link().get().match_name(name.to_owned()).execute();
            let link = match links.try_next().await {
                Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code().abs() == NO_DEVICE => None,
                answer => answer.map_err(failed)?,
            };
            let Some(link) = link else { return Ok(None) };
            let mut found = Vec::new();
            let of_link = handle.address().get().set_link_index_filter(link.header.index);
            let mut addresses = of_link.execute();
            while let Some(address) = addresses.try_next().await.map_err(failed)? {
                found.extend(address.attributes.iter().filter_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                }));
            }
            Ok(best(&found))
        });
        tokio::select! {
            biased;
            answer = asked => answer,
            () = connection => Err(format!("rtnetlink ended before it told about link '{name}'")),
        }
    }
}

/// The first one that another host can reach, of the older protocol if there is one.
fn best(found: &[IpAddr]) -> Option<IpAddr> {
    let reached = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    };
    let mut reached: Vec<_> = found.iter().filter(reached).copied().collect();
    reached.sort_by_key(IpAddr::is_ipv6);
    reached.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_others_reach_is_taken() {
        let all =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
        let found = all(&["fe80::1", "2001:db8::5", "169.254.0.1", "192.0.2.7", "192.0.2.8"]);
        assert_eq!(best(&found), "192.0.2.7".parse().ok());
        assert_eq!(best(&all(&["fe80::1", "2001:db8::5"])), "2001:db8::5".parse().ok());
        assert_eq!(best(&all(&["fe80::1", "127.0.0.1"])), None);
    }

    #[tokio::test]
    async fn a_link_that_is_not_there_has_no_address() {
        assert_eq!(KernelAddresses.of_link("no-such-link").await, Ok(None));
    }
}
