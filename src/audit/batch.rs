//! Group commit: whoever comes while the disk is busy is served together with the others.
//!
//! The first job starts the work on a blocking thread; jobs that arrive meanwhile wait and make
//! the next batch. There is no delay to tune: an idle disk serves one, a busy one serves many.
//! What the system takes into its memory at once is served where it comes from: waking a thread
//! costs more than that work. If it took long after all, threads do it for a while.
//! Why the runtime's blocking threads and no thread of our own: nothing has to be stopped, and a
//! test's paused clock stands still while they work.
//! Bounds: every job has a caller that awaits it, so there are as many as there are sessions.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::mail::limits_of_disk::{ASIDE_FOR, QUICK_MAX};

/// Jobs, served in batches in their order, one batch at a time.
pub struct Batches<J> {
    queue: Mutex<Queue<J>>,
    serve: Box<dyn Fn(Vec<J>) + Send + Sync>,
    is_quick: Box<IsQuick<J>>,
    aside_until: Mutex<Option<Instant>>,
}

/// Whether a batch does not block.
type IsQuick<J> = dyn Fn(&[J]) -> bool + Send + Sync;

struct Queue<J> {
    jobs: Vec<J>,
    serving: bool,
}

impl<J: Send + 'static> Batches<J> {
    /// Takes what serves a batch; it may block.
    pub fn new(serve: impl Fn(Vec<J>) + Send + Sync + 'static) -> Arc<Batches<J>> {
        Batches::with_quick(serve, |_| false)
    }

    /// The same, where some batches do not block.
    pub fn with_quick(
        serve: impl Fn(Vec<J>) + Send + Sync + 'static,
        is_quick: impl Fn(&[J]) -> bool + Send + Sync + 'static,
    ) -> Arc<Batches<J>> {
        let queue = Mutex::new(Queue { jobs: Vec::new(), serving: false });
        let (serve, is_quick) = (Box::new(serve), Box::new(is_quick));
        Arc::new(Batches { queue, serve, is_quick, aside_until: Mutex::default() })
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
            let mut turn = Turn { batches: Arc::clone(self), ended: false };
            tokio::spawn(async move {
                loop {
                    // Why: who is about to hand in another one does so first.
                    tokio::task::yield_now().await;
                    match turn.next_quick() {
                        Some(jobs) => turn.serve_quick(jobs),
                        None if turn.ended => return,
                        None => break,
                    }
                }
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

    /// The next batch, if it does not block; with none left the turn has ended.
    fn next_quick(&mut self) -> Option<Vec<J>> {
        let aside = locked(&self.batches.aside_until).is_some_and(|until| Instant::now() < until);
        let mut queue = locked(&self.batches.queue);
        self.ended = queue.jobs.is_empty();
        queue.serving = !self.ended;
        let is_quick = queue.serving && !aside && (self.batches.is_quick)(&queue.jobs);
        is_quick.then(|| mem::take(&mut queue.jobs))
    }

    fn serve_quick(&self, jobs: Vec<J>) {
        let began = Instant::now();
        (self.batches.serve)(jobs);
        if began.elapsed() > QUICK_MAX {
            *locked(&self.batches.aside_until) = Some(Instant::now() + ASIDE_FOR);
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
    async fn what_comes_back_at_once_is_served_where_it_comes_from_until_it_does_not() {
        use std::thread::{ThreadId, current};

        use tokio::time::Duration;

        let batches = Batches::with_quick(
            |jobs: Vec<(Duration, oneshot::Sender<ThreadId>)>| {
                for (takes, done) in jobs {
                    let began = Instant::now();
                    while began.elapsed() < takes {}
                    done.send(current().id()).unwrap();
                }
            },
            |_| true,
        );
        let served = async |takes| {
            let (done, by) = oneshot::channel();
            batches.push((takes, done));
            by.await.unwrap()
        };
        let here = current().id();
        assert_eq!(served(Duration::ZERO).await, here);
        assert_eq!(served(2 * QUICK_MAX).await, here);
        assert_ne!(served(Duration::ZERO).await, here);
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
