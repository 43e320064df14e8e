use dormouse_core::{Failure, RemoteActivity, Workflow};

const RESIZE: RemoteActivity<u32, u32> = RemoteActivity::new("resize");

async fn gallery(cx: Workflow, name: String) -> Result<u32, Failure> {
    cx.activity(RESIZE, &name).start_to_close(std::time::Duration::from_secs(1)).await
}

fn main() {
    drop(gallery);
}
