//! Tasks: what VDSM begins and finishes later.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::{Failure, lock};

/// Finished tasks that are remembered.
const KEPT: usize = 256;

/// All of this life, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<Vec<Task>>>);

#[derive(Debug, Clone)]
struct Task {
    id: String,
    /// `None` while it runs.
    ended: Option<Result<(), Failure>>,
}

impl Task {
    /// What `Task.getStatus` says of it.
    fn status(&self) -> Value {
        let (code, message, state, result) = match &self.ended {
            None => (0, "running job 1 of 1", "running", ""),
            Some(Ok(())) => (0, "1 jobs completed successfully", "finished", "success"),
            Some(Err(failure)) => (failure.code, failure.message.as_str(), "finished", "cleanSuccess"),
        };
        json!({"code": code, "message": message, "taskID": self.id, "taskState": state, "taskResult": result})
    }
}

impl Tasks {
    /// Begins one on a thread of its own; gives its id.
    pub fn begin(&self, work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        let mut tasks = lock(&self.0);
        if tasks.len() >= KEPT
            && let Some(oldest) = tasks.iter().position(|task| task.ended.is_some())
        {
            tasks.remove(oldest);
        }
        tasks.push(Task { id: id.clone(), ended: None });
        drop(tasks);
        let (all, own) = (self.clone(), id.clone());
        std::thread::spawn(move || {
            let ended = work();
            if let Err(failure) = &ended {
                tracing::warn!(%failure, "task {own} failed");
            }
            if let Some(task) = lock(&all.0).iter_mut().find(|task| task.id == own) {
                task.ended = Some(ended);
            }
        });
        id
    }

    /// `Host.getAllTasksStatuses`.
    pub fn all(&self) -> Value {
        let tasks = lock(&self.0);
        tasks.iter().map(|task| (task.id.clone(), task.status())).collect::<serde_json::Map<_, _>>().into()
    }

    /// `Task.getStatus`.
    pub fn status(&self, id: &str) -> Result<Value, Failure> {
        let tasks = lock(&self.0);
        let task = tasks.iter().find(|task| task.id == id).ok_or_else(|| Failure::no_such_task(id))?;
        Ok(task.status())
    }

    /// `Task.clear`.
    pub fn clear(&self, id: &str) -> Result<(), Failure> {
        let mut tasks = lock(&self.0);
        let place = tasks.iter().position(|task| task.id == id).ok_or_else(|| Failure::no_such_task(id))?;
        if tasks[place].ended.is_none() {
            return Err(Failure::task_state(id));
        }
        tasks.remove(place);
        Ok(())
    }
}
