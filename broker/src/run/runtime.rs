//! The threads that carry requests out.

use std::num::NonZero;
use tokio::runtime::{Builder, Runtime};

/// The runtime of the process: one worker for every two cores it may use, or as many as `TOKIO_WORKER_THREADS` says. The
/// proxy and the servers beside it need the others, and workers that have little to do wake each other: on two cores one
/// worker takes two thirds of the CPU time of two for each call (`make bench BENCH="data-plane --only calls --workers 2"`).
///
/// # Errors
/// When threads cannot be started.
pub fn runtime() -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(workers(
            std::thread::available_parallelism().map_or(1, NonZero::get),
        ));
    }
    builder.enable_all().build()
}

fn workers(cores: usize) -> usize {
    cores.div_ceil(2)
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_always_a_worker_and_never_more_than_cores() {
        assert_eq!([1, 2, 3, 4, 16].map(super::workers), [1, 1, 2, 2, 8]);
    }
}
