use dormouse_core::{App, Failure, RemoteActivity, Workflow};

const RESIZE: RemoteActivity<u32, u32> = RemoteActivity::new("resize");

async fn gallery(cx: Workflow, width: u32) -> Result<u32, Failure> {
    cx.local_activity(RESIZE, &width).await
}

fn main() {
    let _ = App::new().workflow("gallery", gallery).activity("resize", RESIZE);
}
