from celery import chain, shared_task
from celery.utils.log import get_task_logger

from .models import Order

logger = get_task_logger(__name__)


@shared_task
def pack(order_id):
    order = Order.objects.get(pk=order_id)
    order.packed = True
    order.save()
    logger.info("packed %s", order.item)
    return order.item


@shared_task(bind=True, autoretry_for=(OSError,), retry_backoff=True, max_retries=3)
def post(self, item, to):
    return f"{item} for {to}"


@shared_task
def fail(reason):
    raise ValueError(reason)


def send(order_id, to):
    return chain(pack.s(order_id), post.s(to=to)).delay()
