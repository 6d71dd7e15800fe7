//! Group commit: whoever comes while the disk is busy is served together with the others.
//!
//! The first job starts the work on a blocking thread; jobs that arrive meanwhile wait and make
//! the next batch. There is no delay to tune: an idle disk serves one, a busy one serves many.
//! Why the runtime's blocking threads and no thread of our own: nothing has to be stopped, and a
//! test's paused clock stands still while they work.
//! Bounds: every job has a caller that awaits it, so there are as many as there are sessions.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Jobs, served in batches in their order, one batch at a time.
pub struct Batches<J> {
    queue: Mutex<Queue<J>>,
    serve: Box<dyn Fn(Vec<J>) + Send + Sync>,
}

struct Queue<J> {
    jobs: Vec<J>,
    serving: bool,
}

impl<J: Send + 'static> Batches<J> {
    /// Takes what serves a batch; it may block.
    pub fn new(serve: impl Fn(Vec<J>) + Send + Sync + 'static) -> Arc<Batches<J>> {
        let queue = Mutex::new(Queue { jobs: Vec::new(), serving: false });
        Arc::new(Batches { queue, serve: Box::new(serve) })
    }

    /// Hands in a job; returns at once. Must be called inside a tokio runtime.
    ///
    /// A job that cannot be served any more, because the runtime ends, is dropped.
    pub fn push(self: &Arc<Self>, job: J) {
        let idle = {
            let mut queue = locked(&self.queue);
            queue.jobs.push(job);
            !mem::replace(&mut queue.serving, true)
        };
        if idle {
            let turn = Turn { batches: Arc::clone(self), ended: false };
            tokio::spawn(async move {
                // Why: who is about to hand in another one does so first. A thread is woken for all.
                tokio::task::yield_now().await;
                tokio::task::spawn_blocking(move || turn.serve());
            });
        }
    }
}

impl<J> fmt::Debug for Batches<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").finish_non_exhaustive()
    }
}

/// The right to serve. Why a type: if it is dropped unused, or the work panics, the waiting jobs
/// are dropped and the next one starts anew, instead of all waiting for ever.
struct Turn<J> {
    batches: Arc<Batches<J>>,
    ended: bool,
}

impl<J> Turn<J> {
    fn serve(mut self) {
        while let Some(jobs) = self.next() {
            (self.batches.serve)(jobs);
        }
    }

    fn next(&mut self) -> Option<Vec<J>> {
        let mut queue = locked(&self.batches.queue);
        self.ended = queue.jobs.is_empty();
        queue.serving = !self.ended;
        queue.serving.then(|| mem::take(&mut queue.jobs))
    }
}

impl<J> Drop for Turn<J> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let left = {
            let mut queue = locked(&self.batches.queue);
            queue.serving = false;
            mem::take(&mut queue.jobs)
        };
        drop(left);
    }
}

/// The content of a lock. Why not fail on a poisoned one: every change under the room's locks is
/// a single step, so that a panic elsewhere leaves nothing half done.
pub fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn jobs_that_come_while_the_disk_is_busy_are_one_batch() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let served = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&served);
        let batches = Batches::new(move |jobs: Vec<(u32, oneshot::Sender<()>)>| {
            locked(&wait).recv().unwrap();
            locked(&seen).push(jobs.iter().map(|(number, _)| *number).collect::<Vec<_>>());
            jobs.into_iter().for_each(|(_, done)| done.send(()).unwrap());
        });
        let push = |number| {
            let (done, result) = oneshot::channel();
            batches.push((number, done));
            result
        };
        let first = push(1);
        // The first may be alone or not: it is out of the queue once its batch is served.
        go.send(()).unwrap();
        first.await.unwrap();
        let rest = [2, 3, 4].map(push);
        go.send(()).unwrap();
        go.send(()).unwrap();
        for result in rest {
            result.await.unwrap();
        }
        let served = locked(&served).clone();
        assert_eq!(served.concat(), [1, 2, 3, 4]);
        assert!(served.len() <= 3, "{served:?}");
    }

    #[tokio::test]
    async fn work_that_panics_fails_its_jobs_and_not_the_next() {
        let batches = Batches::new(|jobs: Vec<(bool, oneshot::Sender<()>)>| {
            for (panics, done) in jobs {
                assert!(!panics, "as the test wants it");
                done.send(()).unwrap();
            }
        });
        let (done, result) = oneshot::channel();
        batches.push((true, done));
        assert!(result.await.is_err());
        // The turn ends after its jobs are dropped; a job pushed before that end is dropped too.
        loop {
            let (done, result) = oneshot::channel();
            batches.push((false, done));
            if result.await.is_ok() {
                break;
            }
        }
    }
}
