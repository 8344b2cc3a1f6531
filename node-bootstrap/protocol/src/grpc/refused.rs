//! How a [`Refusal`] travels: as metadata of a gRPC status, beside a text for people.

use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::refusal::Reason;
use super::{Refusal, Removal, Unknown};
use crate::header::REFUSAL;

impl Removal {
    /// The status that says so.
    pub fn status(self) -> Status {
        let text = format!("node {} was removed from its cluster", self.node_id);
        status(Code::PermissionDenied, text, Reason::Removal(self))
    }
}

impl Unknown {
    /// The status that says so.
    pub fn status(self) -> Status {
        let text = format!("the platform does not know node {}", self.node_id);
        status(Code::NotFound, text, Reason::Unknown(self))
    }
}

impl Refusal {
    /// The refusal that a status carries, if it carries one.
    pub fn of(status: &Status) -> Option<Reason> {
        let bytes = status.metadata().get_bin(REFUSAL)?.to_bytes().ok()?;
        Self::decode(bytes).ok()?.reason
    }
}

fn status(code: Code, text: String, reason: Reason) -> Status {
    let mut status = Status::new(code, text);
    let value = MetadataValue::from_bytes(&Refusal { reason: Some(reason) }.encode_to_vec());
    status.metadata_mut().insert_bin(REFUSAL, value);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_back_whole_and_a_text_is_none() {
        let removal = Removal { node_id: "nod_x".into(), cluster_id: "cls_x".into(), removed_at: 7 };
        assert_eq!(Refusal::of(&removal.clone().status()), Some(Reason::Removal(removal)));
        let unknown = Unknown { node_id: "nod_x".into() };
        assert_eq!(Refusal::of(&unknown.clone().status()), Some(Reason::Unknown(unknown)));
        assert_eq!(Refusal::of(&Status::permission_denied("node nod_x was removed from its cluster")), None);
    }

    #[test]
    fn the_same_configuration_has_the_same_bytes() {
        let keys: Vec<String> = (0..40).map(|number| format!("key-{number}")).collect();
        let labels = |keys: &mut dyn Iterator<Item = &String>| keys.map(|key| (key.clone(), key.clone())).collect();
        let forth = super::super::NodeConfig { labels: labels(&mut keys.iter()), ..Default::default() };
        let back = super::super::NodeConfig { labels: labels(&mut keys.iter().rev()), ..Default::default() };
        assert_eq!(forth.encode_to_vec(), back.encode_to_vec());
    }
}
