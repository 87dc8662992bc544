"""Imports products from files, and renders their pictures. Several may run."""

from __future__ import annotations

from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.public_http import open_public_transport
from commerce.pictures.picture_jobs import PictureJobs
from commerce.pictures.picture_policy import open_picture_files
from commerce.product_imports.import_jobs import ImportJobs
from commerce.product_quality.grading import ProductGrading
from commerce.product_quality.publishing_gate import PublishingGate
from workers import metrics
from workers.job_runner import JobRunner
from workers.loop import run_steps
from workers.runtime import WorkerServices


async def picture_worker(services: WorkerServices) -> None:
    """Do jobs of pictures and imports of products until the process stops; running jobs are finished."""
    policy, quality = services.settings.pictures, services.settings.quality
    gate = PublishingGate(ProductGrading(services.db, services.clock, quality), quality.publish_from)
    # Each runs in a process of its own: more than these would wait for a core while their lease ends.
    settings = services.settings.jobs.model_copy(update={"concurrent_jobs": policy.concurrent_renders})
    async with open_public_transport(
        timeout_s=policy.fetch_timeout_s,
        connections=policy.concurrent_renders,
        max_response_bytes=policy.max_bytes,
        ports=policy.fetch_ports,
        allowed=policy.fetch_networks,
    ) as transport:
        jobs = PictureJobs(
            *(services.db, services.clock, policy, open_picture_files(policy, services.settings.data_dir), transport),
            *(RetryPolicy.from_settings(settings), settings.max_attempts),
            lambda reason: metrics.REFUSED_PICTURES.labels(reason).inc(),
        )
        imports = ImportJobs(
            *(services.db, services.clock, IdGenerator(services.clock)),
            *(RetryPolicy.from_settings(settings), settings.max_attempts),
            gate.check,
        )
        queues = [jobs.queue, imports.queue]
        due = services.due_jobs.event(*(queue.name for queue in queues))
        wake_ups = {queue.name: services.due_jobs.event(queue.name) for queue in queues}
        runner = JobRunner("picture_worker", queues, (), settings, services.clock, due, wake_ups)
        poll_s = settings.poll_ms / 1000
        await run_steps("picture_worker", runner.start_due_jobs, services.stop, poll_s, due, runner.may_have_more)
        await runner.drain()
