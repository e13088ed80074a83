from fsdf_engine import RedisConsmer


def your_function(x):
    print(f"your_function {x}")


RedisConsmer("queue_name", consuming_function=your_function).start_consuming_message()
