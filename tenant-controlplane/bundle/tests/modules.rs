//! The `modules` source on the real Go toolchain, with the smallest of the catalog's groups.

use std::sync::{Arc, Mutex};

use bundle::{AgentSource, BuildOptions, Bundle, BundleError, Cache, Keys, Source, Version};

#[tokio::test]
async fn the_disk_is_measured_before_a_cold_build() {
    let dir = tempfile::tempdir().unwrap();
    let opts = BuildOptions {
        cache: Cache::with_keys(dir.path(), Keys::new(dir.path().join("signing"))),
        source: Source::Modules,
        agent: AgentSource::Absent,
        free_space: Arc::new(|_| Ok(2_000_000_000)),
        ..BuildOptions::new(Version::default())
    };
    let error = Bundle::build(&opts, &|_| {}).await.unwrap_err();
    let BundleError::Space { need, .. } = &error else { panic!("{error}") };
    assert!(*need > 1_000_000_000, "{error}");
}

/// Stops the build as soon as the first programs are there, as a person would, and begins it again.
#[tokio::test]
async fn an_interrupted_build_keeps_what_was_finished() {
    let dir = tempfile::tempdir().unwrap();
    let opts = BuildOptions {
        cache: Cache::with_keys(dir.path(), Keys::new(dir.path().join("signing"))),
        source: Source::Modules,
        agent: AgentSource::Absent,
        free_space: Arc::new(|_| Ok(u64::MAX)),
        ..BuildOptions::new(Version::default())
    };
    for expected in [" s", "(cached)"] {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let told = Mutex::new(told);
        let report = move |progress: bundle::Progress| drop(told.lock().unwrap().send(progress.to_string()));
        let until = async {
            while let Some(line) = heard.recv().await {
                if line.starts_with("pause: ") && line.ends_with(expected) {
                    return;
                }
            }
        };
        tokio::select! {
            result = Bundle::build(&opts, &report) => panic!("it ended before `{expected}`: {:?}", result.map(|_| ())),
            () = until => {}
        }
    }
}
