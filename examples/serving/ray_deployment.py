"""`emoser serve` on a Ray cluster: `serve run examples.serving.ray_deployment:service`.

Ray starts and stops replicas with the load and sends each request to the least busy one. The
settings are the environment variables of `emoser.serve.ServeOptions`.
"""

from ray import serve

from emoser.serve import create_app


@serve.deployment(
    ray_actor_options={"num_cpus": 1},
    autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 2},
    max_ongoing_requests=128,
)
@serve.ingress(create_app)
class EmotionService:
    """Every replica loads the model once and answers the endpoints of the service."""


service = EmotionService.bind()
