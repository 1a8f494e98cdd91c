//! Verbs about the host's networks.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{QUICK, SLOW, object};
use crate::client::Client;
use crate::error::CallError;

/// What VDSM knows of the host's networks: `networks`, `bridges`, `nics`, `bondings`, `vlans`, each an object by name.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkCapabilities {
    /// The answer as it came.
    pub raw: Value,
}

impl NetworkCapabilities {
    /// One of `kind`; `None` when there is none of that name.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Map<String, Value>> {
        self.raw.get(kind)?.get(name)?.as_object()
    }
}

impl Client {
    /// `Host.getNetworkCapabilities`.
    pub async fn network_capabilities(&self) -> Result<NetworkCapabilities, CallError> {
        let method = "Host.getNetworkCapabilities";
        let answer = self.call(method, json!({}), SLOW).await?;
        let raw = answer.get("info").unwrap_or(&answer);
        object(method, raw)?;
        Ok(NetworkCapabilities { raw: raw.clone() })
    }

    /// `Host.setupNetworks`: sets networks up, or removes them (`{"remove": true}`), by their names. Unless
    /// [`Client::confirm_connectivity`] or a ping comes over a connection within `connectivity`, VDSM puts everything back
    /// and refuses with [`crate::code::LOST_CONNECTION`].
    pub async fn setup_networks(
        &self,
        networks: &Map<String, Value>,
        connectivity: Duration,
    ) -> Result<(), CallError> {
        let params = json!({
            "networks": networks,
            "bondings": {},
            "options": {"connectivityCheck": 1, "connectivityTimeout": connectivity.as_secs()},
        });
        self.call("Host.setupNetworks", params, SLOW + connectivity).await.map(drop)
    }

    /// `Host.confirmConnectivity`: this client still reaches VDSM.
    pub async fn confirm_connectivity(&self) -> Result<(), CallError> {
        self.call("Host.confirmConnectivity", json!({}), QUICK).await.map(drop)
    }

    /// `Host.setSafeNetworkConfig`: the networks as they are now are those after a boot.
    pub async fn set_safe_network_config(&self) -> Result<(), CallError> {
        self.call("Host.setSafeNetworkConfig", json!({}), SLOW).await.map(drop)
    }
}
