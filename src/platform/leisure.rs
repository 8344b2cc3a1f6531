//! Whether this machine's processors have nothing better to do: what is made ahead takes them from nobody.

use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How many looks are overlooked.
const LOOKS: usize = 5;
/// The most that they may be used meanwhile, percent: one of two that works all the time is more.
const BUSY: u64 = 40;

/// Processor time since the machine started, in ticks.
#[derive(Clone, Copy, Default)]
struct Times {
    used: u64,
    all: u64,
}

/// Says whether less than [`BUSY`] was used over the last [`LOOKS`], for as long as it is polled.
pub async fn follow(leisure: watch::Sender<bool>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = VecDeque::new();
    loop {
        tick.tick().await;
        seen.push_back(times(&fs::read_to_string("/proc/stat").unwrap_or_default()));
        if seen.len() > LOOKS {
            let (before, now) = (seen.pop_front().unwrap_or_default(), seen.back().copied().unwrap_or_default());
            leisure.send_replace(is_idle(before, now));
        }
    }
}

fn is_idle(before: Times, now: Times) -> bool {
    // The kernel's count of waiting may go back (proc(5)), and what could not be read is 0.
    now.used.saturating_sub(before.used) * 100 < now.all.saturating_sub(before.all) * BUSY
}

/// Reads the first line of /proc/stat (proc(5)). What a hypervisor gave to others counts as time, and as used by nobody here.
fn times(stat: &str) -> Times {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, idle, wait, irq, softirq, steal] = ticks[..] else { return Times::default() };
    let used = user + nice + system + irq + softirq;
    Times { used, all: used + idle + wait + steal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_that_works_is_no_leisure() {
        let before = times("cpu  100 0 50 1000 10 0 0 0 0 0\ncpu0 1 2 3\n");
        let after = |user: u64, idle: u64| times(&format!("cpu  {user} 0 50 {idle} 10 0 0 0 0 0\n"));
        assert!(is_idle(before, after(300, 1800)));
        assert!(!is_idle(before, after(600, 1500)));
        let stolen = times("cpu  200 0 50 1100 10 0 0 800 0 0\n");
        assert!(is_idle(before, stolen));
        assert!(!is_idle(Times::default(), times("")), "unknown is not idle");
        assert!(!is_idle(before, Times::default()), "nor is what can no longer be read");
    }

    #[test]
    fn this_machine_says_it() {
        let now = times(&fs::read_to_string("/proc/stat").unwrap());
        assert!(now.used > 0 && now.all > now.used);
    }
}
