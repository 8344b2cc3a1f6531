//! A watcher's events as facts.

use std::collections::HashMap;

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};

use crate::host::{ApiError, WatchEvent};

/// The most objects whose facts are kept of one watch: more than one host or one cluster has.
const WATCHED: usize = 20_000;

type Events<K> = Result<Event<K>, watcher::Error>;

/// Turns a watcher's events into facts: what comes between `Init` and `InitDone` is one whole truth.
pub fn gather<K, T>(
    events: impl Stream<Item = Events<K>> + Send + 'static,
    info: impl Fn(&K) -> Option<T> + Send + 'static,
    uid: impl Fn(&K) -> Option<String> + Send + 'static,
) -> impl Stream<Item = Result<WatchEvent<T>, ApiError>> + Send + 'static
where
    K: Send + 'static,
    T: Send + 'static,
{
    let mut listed: HashMap<Option<String>, T> = HashMap::new();
    events.filter_map(move |event| {
        let seen = match event {
            Err(error) => Some(Err(ApiError::Unreachable(Box::new(error)))),
            Ok(Event::Init) => {
                listed.clear();
                None
            }
            Ok(Event::InitApply(_)) if listed.len() >= WATCHED => {
                Some(Err(ApiError::TooLong("the list to watch".to_owned())))
            }
            Ok(Event::InitApply(object)) => {
                if let Some(info) = info(&object) {
                    listed.insert(uid(&object), info);
                }
                None
            }
            Ok(Event::InitDone) => Some(Ok(WatchEvent::All(listed.drain().map(|(_, info)| info).collect()))),
            Ok(Event::Apply(object)) => info(&object).map(|info| Ok(WatchEvent::Changed(info))),
            Ok(Event::Delete(object)) => info(&object).map(|info| Ok(WatchEvent::Gone(info))),
        };
        futures::future::ready(seen)
    })
}
