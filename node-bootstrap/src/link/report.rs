//! What a node says of itself over its link.

use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use node_protocol::{Check, MachineFacts, NodePhase, NodeReport};
use tokio::sync::watch;

use crate::machine;
use crate::status::{Board, Phase};

/// What a report is made of.
#[derive(Clone)]
pub struct Told {
    /// How the node does.
    pub board: Board,
    /// Which generation is in force.
    pub observed: watch::Receiver<u64>,
    /// What preflight found.
    pub checks: Vec<Check>,
    /// The pods' range: addresses in it are no addresses of the machine.
    pub pods: Ipv4Net,
}

impl Told {
    /// The report of this moment.
    pub fn report(&self) -> NodeReport {
        let status = self.board.status();
        let phase = match status.phase {
            Phase::Starting => NodePhase::Joining,
            // The platform shows what fails; whether the node is ready is Kubernetes' word.
            Phase::Ready if !status.failing().is_empty() => {
                return NodeReport { checks: status.failing(), ..self.say(NodePhase::Failed, "") };
            }
            Phase::Ready => NodePhase::Ready,
            Phase::Degraded | Phase::Stopping | Phase::Stopped => NodePhase::Failed,
        };
        self.say(phase, &status.message)
    }

    fn facts(&self) -> MachineFacts {
        let mut facts = machine::facts(Path::new("/"));
        facts.addresses.retain(|text| !text.parse().is_ok_and(|address: Ipv4Addr| self.pods.contains(&address)));
        facts
    }

    /// A report with other words.
    pub fn say(&self, phase: NodePhase, message: &str) -> NodeReport {
        NodeReport {
            observed_generation: *self.observed.borrow(),
            phase: phase.into(),
            message: message.into(),
            facts: Some(self.facts()),
            checks: self.checks.clone(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}
