from fsdf_engine import get_consumer, BrokerEnum


def add(a, b):
    print(a + b)


consumer = get_consumer(
    "queue_test_f01", consuming_function=add, qps=0.2, broker_kind=BrokerEnum.REDIS_ACK_ABLE
)
for i in range(10, 20):
    consumer.publisher_of_same_queue.publish(dict(a=i, b=i * 2))
consumer.start_consuming_message()
