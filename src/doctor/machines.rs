//! What keeps local machines from this one.

use super::Check;
use crate::detach::read_ready;
use crate::instance::Instance;
use crate::platform::machines::Mode;

const ID: &str = "local-machines";

/// Says the mode that the running instance has chosen.
pub fn mode(instance: &Instance) -> Check {
    match read_ready(instance).map(|ready| ready.local_machines) {
        Ok(Mode::Trusted) => Check::warn(
            ID,
            Mode::Trusted.described(),
            "good for trying out; for others' workloads take machines of their own: pilothouse up --local-machines off",
        ),
        Ok(Mode::Off) | Err(_) => Check::pass(ID, Mode::Off.described()),
    }
}
