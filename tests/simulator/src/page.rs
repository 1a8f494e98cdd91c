//! The engine's page as a simulated host sees it.

use std::time::Duration;

use async_trait::async_trait;
use ha_broker::monitors::Liveliness;

use crate::world::HostRef;

/// The engine's page as the host sees it.
pub struct SimPage(pub HostRef);

/// How long the shipped page check waits.
pub const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

#[async_trait]
impl Liveliness for SimPage {
    async fn check(&self) -> Result<(), String> {
        let (answers, delay) = {
            let state = self.0.world.state();
            (state.engine_answers(self.0.id, self.0.world.now()), state.guest.page_delay)
        };
        match answers {
            None => {
                tokio::time::sleep(PAGE_TIMEOUT).await;
                Err("no answer within 5 s".to_owned())
            }
            Some(good) => {
                tokio::time::sleep(delay).await;
                if good { Ok(()) } else { Err("connection refused".to_owned()) }
            }
        }
    }
}
