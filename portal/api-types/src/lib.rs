//! The shapes REST v1 speaks: one file per noun, serde for the wire, utoipa for OpenAPI 3.1.
//!
//! The server writes these types and the CLI reads them, so a change here is a change of the API. Rules that hold
//! everywhere: names are `snake_case`, times are RFC 3339 UTC, durations carry their unit in the name (`*_seconds`), ids are
//! TypeIDs (`cls_…`), and states are lower-snake *text*, not enums: a client must accept a state it has not met.
//! Inside v1 changes are additive only. Requests refuse unknown fields, so a typing error is told and not ignored.

mod audit;
mod cluster;
mod envelope;
mod error_code;
mod identity;
mod join_token;
mod kubeconfig;
mod node;
mod node_pool;
mod operation;
mod problem;
mod quota;
mod session;
mod setup;
mod token;
mod version;

pub use audit::AuditEntry;
pub use cluster::{Cluster, Condition, CreateCluster};
pub use envelope::{Links, List};
pub use error_code::ErrorCode;
pub use identity::{CreateOrganization, CreateProject, Me, Membership, Organization, Project, User};
pub use join_token::{CreateJoinToken, CreatedJoinToken, JoinCommands, JoinToken};
pub use kubeconfig::{IssueKubeconfig, IssuedKubeconfig, Kubeconfig};
pub use node::Node;
pub use node_pool::{CreateNodePool, NodePool, PatchNodePool};
pub use operation::{Operation, Step};
pub use problem::{FieldError, Problem};
pub use quota::{Quota, QuotaUse};
pub use session::{ChangePassword, EndedSessions, Session};
pub use setup::{Setup, SetupDone};
pub use token::{CreateToken, CreatedToken, Token};
pub use version::KubernetesVersion;
