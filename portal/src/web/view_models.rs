//! Rows and steps as pages show them, made from what the API returns. Shared by the pages of clusters, pools and nodes.

use api_types::{Condition, Node, NodePool, Operation, Step};

use super::ui::{Moment, Status, ago, took, words};

/// One step of an operation.
pub struct StepView {
    /// `done`, `running`, `waiting` or `failed`.
    pub state: &'static str,
    /// Icon for it.
    pub icon: &'static str,
    /// What a screen reader adds to the title.
    pub word: &'static str,
    /// Title for people.
    pub title: String,
    /// How long it took, or takes so far.
    pub took: String,
    /// What is being waited for, or what went wrong.
    pub message: String,
}

impl StepView {
    fn of(step: &Step) -> Self {
        let (state, icon, word) = match step.state.as_str() {
            "done" => ("done", "ok", "done"),
            "running" => ("running", "work", "running"),
            "failed" => ("failed", "bad", "failed"),
            _ => ("waiting", "wait", "not started"),
        };
        let time = step.duration_milliseconds.map(took).unwrap_or_default();
        let took = if state == "running" && !time.is_empty() { format!("{time} so far") } else { time };
        StepView { state, icon, word, title: step.title.clone(), took, message: step.message.clone() }
    }
}

/// The newest operation of a thing.
pub struct Progress {
    /// `op_…`
    pub id: String,
    /// One line over the steps.
    pub heading: String,
    /// One sentence for screen readers, the same until a step changes.
    pub sentence: String,
    /// The steps.
    pub steps: Vec<StepView>,
    /// Whether it goes on.
    pub running: bool,
}

impl Progress {
    /// The newest operation as a list of steps.
    pub fn of(operation: &Operation) -> Self {
        let total = operation.steps.len();
        let at = operation.steps.iter().position(|step| step.state != "done").unwrap_or(total.saturating_sub(1));
        let title = operation.steps.get(at).map(|step| step.title.clone()).unwrap_or_default();
        let place = format!("step {} of {total}", at + 1);
        let (heading, sentence) = match operation.state.as_str() {
            "succeeded" => (format!("{} completed in {}", verb(&operation.kind), time(operation)), "Done.".to_owned()),
            "failed" => (format!("Failed at {place}: {title}"), format!("Failed at {place}, {title}.")),
            "cancelled" => (format!("{} was cancelled", verb(&operation.kind)), "Cancelled.".to_owned()),
            _ if total == 0 => (format!("{} has not started", verb(&operation.kind)), "Waiting to start.".to_owned()),
            _ => (format!("Step {} of {total}: {title}", at + 1), format!("Step {} of {total}, {title}.", at + 1)),
        };
        Progress {
            id: operation.id.clone(),
            heading,
            sentence,
            steps: operation.steps.iter().map(StepView::of).collect(),
            running: !operation.is_finished(),
        }
    }
}

fn verb(kind: &str) -> &'static str {
    match kind.rsplit('.').next() {
        Some("create") => "Creation",
        Some("delete") => "Deletion",
        Some("scale" | "update") => "Change",
        _ => "Operation",
    }
}

fn time(operation: &Operation) -> String {
    let length = operation.finished_at.map(|end| end - operation.created_at).unwrap_or_default();
    took(u64::try_from(length.whole_milliseconds()).unwrap_or_default())
}

/// One condition of a cluster.
pub struct Check {
    /// `pass`, `working`, `fail` or `unknown`.
    pub state: &'static str,
    /// Icon for it.
    pub icon: &'static str,
    /// What a screen reader adds to the title.
    pub word: &'static str,
    /// Title for people.
    pub title: String,
    /// A sentence.
    pub message: String,
    /// Since when.
    pub since: Moment,
}

impl Check {
    /// A condition; while the cluster is at work, "no" means "not yet", and is not red.
    pub fn of(condition: &Condition, at_work: bool) -> Self {
        let (state, icon, word) = match (condition.status.as_str(), at_work) {
            ("True", _) => ("pass", "ok", "yes"),
            ("False", true) => ("working", "work", "not yet"),
            ("False", false) => ("fail", "bad", "no"),
            _ => ("unknown", "unknown", "unknown"),
        };
        let since = ago(condition.last_transition_time);
        Check { state, icon, word, title: title(&condition.kind), message: condition.message.clone(), since }
    }
}

fn title(kind: &str) -> String {
    match kind {
        "DatastoreReady" => "etcd".into(),
        "ControlPlaneAvailable" => "Control plane".into(),
        "EndpointReachable" => "Gateway".into(),
        "AddonsHealthy" => "Add-ons".into(),
        "NodesHealthy" => "Nodes".into(),
        "TunnelConnected" => "Node links".into(),
        other => words(other),
    }
}

/// One node in a table.
pub struct NodeRow {
    /// `nod_…`
    pub id: String,
    /// Its name.
    pub name: String,
    /// Name of its pool.
    pub pool: String,
    /// Its state.
    pub status: Status,
    /// One sentence on the state; the problem's, if there is one.
    pub message: String,
    /// `connected` or `down`.
    pub link: &'static str,
    /// Since when it is known.
    pub age: Moment,
}

impl NodeRow {
    /// A node, with its pool looked up by id.
    pub fn of(node: &Node, pools: &[NodePool]) -> Self {
        let pool = pools.iter().find(|pool| pool.id == node.node_pool_id);
        let problem = node.problem.as_ref().map(|problem| problem.detail.clone());
        NodeRow {
            id: node.id.clone(),
            name: node.name.clone(),
            pool: pool.map(|pool| pool.name.clone()).unwrap_or_default(),
            status: Status::node(&node.state),
            message: problem.unwrap_or_else(|| node.state_message.clone()),
            link: if node.link_connected { "connected" } else { "down" },
            age: ago(node.created_at),
        }
    }
}

/// One pool in a table.
pub struct PoolRow {
    /// `np_…`
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its machines come from, in words.
    pub kind: &'static str,
    /// `2 / 3`: nodes ready, of those there are or should be.
    pub ready: String,
    /// Its state.
    pub status: Status,
    /// What is wrong or under way, if something is.
    pub message: String,
}

impl PoolRow {
    /// A pool and how many of its nodes are ready.
    pub fn of(pool: &NodePool, nodes: &[Node]) -> Self {
        let mine: Vec<&Node> = nodes.iter().filter(|node| node.node_pool_id == pool.id).collect();
        let ready = mine.iter().filter(|node| node.state == "ready").count();
        let problem = pool.problem.as_ref().map(|problem| problem.detail.clone());
        let wanted = if pool.kind == "byo" { mine.len() } else { pool.count as usize };
        PoolRow {
            id: pool.id.clone(),
            name: pool.name.clone(),
            kind: kind(&pool.kind),
            ready: format!("{ready} / {wanted}"),
            status: Status::pool(&pool.state),
            message: problem.unwrap_or_else(|| pool.state_message.clone()),
        }
    }
}

/// Where the machines of a pool come from.
pub fn kind(kind: &str) -> &'static str {
    match kind {
        "byo" => "your own machines",
        "local" => "local machines",
        _ => "machines",
    }
}
